// The results of a row operation: piece j of output object g is this core's 16 rows of block column 4 g + j. An addition
// takes two input objects per piece, x and then y.
// An overlay that holds no other row operation leaves them out (ONLY_LAYER_NORM).
#ifndef ONLY_LAYER_NORM
#include "gelu.hpp"
#endif
#include "rows.hpp"

namespace {

SHARED void normalise(const bfloat16 *x, bfloat16 *y, const float *gamma, const float *beta, const row_state &state) {
    for (int t = 0; t < a_columns; ++t) {
        const auto g = aie::load_v<8>(gamma + 8 * t), o = aie::load_v<8>(beta + 8 * t);
        const split<> gain = parts(sum16(aie::concat(g, g)));
        const sum16 offset(aie::concat(o, o));
        for (int h = 0; h < halves; ++h) {
            const sum16 d = aie::sub(sum16(aie::load_v<16>(x + half_at(h, t))), load_sums(state.first(h)));
            const split<> unit = parts(product(parts(d), parts(load_sums(state.second(h)))));
            aie::store_v(y + half_at(h, t), plus_product(offset, unit, gain).to_vector<bfloat16>());
        }
    }
}

#ifndef ONLY_LAYER_NORM
SHARED void exponentials(const bfloat16 *x, bfloat16 *y, const row_state &state, int valid) {
    for (int h = 0; h < halves; ++h) {
        const sum16 maximum = load_sums(state.first(h));
        const split<> inverse = parts(load_sums(state.second(h)));
        for (int t = 0; t < a_columns; ++t) {
            const exponent e(aie::load_v<16>(x + half_at(h, t)), valid - 8 * t);
            const v16 share = product(e.fraction(), inverse).to_vector<bfloat16>();
            aie::store_v(y + half_at(h, t), aie::mul(share, power(aie::sub(e.n, maximum))).to_vector<bfloat16>());
        }
    }
}
#endif

}  // namespace

extern "C" void row_apply(const bfloat16 *__restrict b, bfloat16 *c, const bfloat16 *__restrict a0, const bfloat16 *__restrict a1,
                          float *__restrict acc, const int32_t *__restrict hdr, int32_t g, int32_t j, int32_t row) {
    round_to_nearest_even();
    const row_state state{acc};
    const int kind = hdr[word::kind];
    const bfloat16 *x = b + row * my_rows;
    bfloat16 *y = c + (kind == kind_add ? j / 2 : j) * my_rows;
    const int column = 64 * (4 * g + j);
#ifndef ONLY_LAYER_NORM
    if (kind == kind_softmax) {
        exponentials(x, y, state, hdr[word::valid] - column);
        return;
    }
    if (kind != kind_layer_norm) {
        AT_LEAST(16)
        for (int i = 0; i < my_rows; i += 32) {
            const v32 in = aie::load_v<32>(x + i);
            if (kind == kind_gelu)
                aie::store_v(y + i, gelu(sums<32>(in)).to_vector<bfloat16>());
            else if (j % 2 == 0)
                aie::store_v(y + i, in);
            else
                aie::store_v(y + i, aie::add(sums<32>(aie::load_v<32>(y + i)), sums<32>(in)).to_vector<bfloat16>());
        }
        return;
    }
#endif
    normalise(x, y, reinterpret_cast<const float *>(a0) + column, reinterpret_cast<const float *>(a1) + column, state);
}
