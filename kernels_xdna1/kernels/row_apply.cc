// The results of a row operation: piece j of output object g is this core's 16 rows of block column 4 g + j. An addition
// takes two input objects per piece, x and then y.
// An overlay that holds no other row operation leaves them out (ONLY_LAYER_NORM).
#ifndef ONLY_LAYER_NORM
#include "gelu.hpp"
#endif
#include "rows.hpp"

namespace {

// y = (x inverse - mean inverse) gamma + beta; the first product has all bits of x and 24 of the inverse.
SHARED void normalise(const bfloat16 *__restrict x, bfloat16 *__restrict y, const float *__restrict gamma, const float *__restrict beta,
                      const float *__restrict offsets, const float *__restrict limbs) {
    INSIDE("normalise");
    AT_LEAST(16)
    for (unsigned v = 0; v < my_rows / 16; v += 2) {
        TRIP("normalise");
        const unsigned column = v / 2 % a_columns * 8, h = v / 16 * 2;
        const auto g = aie::load_v<8>(gamma + column), o = aie::load_v<8>(beta + column);
        const split<> gain = parts(sum16(aie::concat(g, g)));
        const sum16 beta2(aie::concat(o, o));
        const auto half = [&](unsigned w) {
            const v16 in = aie::load_v<16>(x + 16 * (v + w)), again = aie::load_v<16>(x + 16 * (v + w));
            const v32 upper = aie::load_v<16>(limbs + 32 * (h + w)).cast_to<bfloat16>();
            const v16 lowest = aie::load_v<8>(limbs + 32 * (h + w) + 16).cast_to<bfloat16>();
            const sum16 unit = aie::mac(mac_pairs(load_sums(offsets + 16 * (h + w)), aie::concat(in, again), upper), in, lowest);
            aie::store_v(y + 16 * (v + w), plus_product(beta2, parts(unit), gain).to_vector<bfloat16>());
        };
        half(0), half(1);
    }
}

#ifndef ONLY_LAYER_NORM
SHARED void exponentials(const bfloat16 *x, bfloat16 *y, const row_state &state, int valid) {
    INSIDE("powers");
    for (int h = 0; h < halves; ++h) {
        TRIP("pairs of rows");
        const sum16 maximum = load_sums(state.first(h));
        const split<> inverse = parts(load_sums(state.second(h)));
        for (int t = 0; t < a_columns; ++t) {
            TRIP("powers");
            const exponent e(aie::load_v<16>(x + h / 2 * a_row + t * a_tile + h % 2 * 16), valid - 8 * t);
            const v16 share = product(e.fraction(), inverse).to_vector<bfloat16>();
            aie::store_v(y + h / 2 * a_row + t * a_tile + h % 2 * 16, aie::mul(share, power(aie::sub(e.n, maximum))).to_vector<bfloat16>());
        }
    }
}

// As sums first, for the GELU of products.
SHARED void gelu_rows(const bfloat16 *__restrict x, bfloat16 *__restrict y, float *__restrict acc) {
    INSIDE("gelu rows");
    AT_LEAST(16)
    for (int i = 0; i < my_rows; i += a_tile) {
        TRIP("widen");
        const v32 tile = aie::load_v<32>(x + i);
        store_sums(acc + i, sum16(aie::filter_even(tile, 4)));
        store_sums(acc + i + sum_tile, sum16(aie::filter_odd(tile, 4)));
    }
    activate(acc, y, my_rows / 16);
}

SHARED void copy_rows(const bfloat16 *__restrict x, bfloat16 *__restrict y) {
    AT_LEAST(16)
    for (int i = 0; i < my_rows; i += 32) {
        TRIP("copy");
        aie::store_v(y + i, aie::load_v<32>(x + i));
    }
}

// y += x, each trip's y read before the last one's is written.
SHARED void add_rows(const bfloat16 *__restrict x, bfloat16 *__restrict y) {
    const v16 one = small(1);
    sum16 next0(aie::load_v<16>(y)), next1(aie::load_v<16>(y + 16));
    AT_LEAST(16)
    for (int i = 0; i < my_rows; i += 32) {
        TRIP("add");
        const sum16 y0 = aie::mac(next0, aie::load_v<16>(x + i), one), y1 = aie::mac(next1, aie::load_v<16>(x + i + 16), one);
        const bfloat16 *ahead = y + (i + 32 < my_rows ? i + 32 : i);
        next0 = sum16(aie::load_v<16>(ahead)), next1 = sum16(aie::load_v<16>(ahead + 16));
        aie::store_v(y + i, y0.to_vector<bfloat16>()), aie::store_v(y + i + 16, y1.to_vector<bfloat16>());
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
    if (kind == kind_gelu) {
        gelu_rows(x, y, acc);
        return;
    }
    if (kind == kind_add) {
        if (j % 2 == 0) copy_rows(x, y);
        else add_rows(x, y);
        return;
    }
#endif
    normalise(x, y, reinterpret_cast<const float *>(a0) + column, reinterpret_cast<const float *>(a1) + column, state.first(0), state.limbs(0));
}
