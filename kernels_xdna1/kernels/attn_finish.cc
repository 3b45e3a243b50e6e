// The one division: O / sum, rounded to bf16, in A order. Sixteen rows' reciprocals at once, then all tiles in one loop.
#include "attention.hpp"

namespace {

SHARED void divide(const float *__restrict acc, const float *__restrict inverses, bfloat16 *__restrict c) {
    INSIDE("divide");
    AT_LEAST(32)
    for (unsigned v = 0; v < row_tiles * a_columns; ++v) {
        TRIP("quotients");
        const v32 inverse = aie::load_v<16>(inverses + v / a_columns * sum_tile).cast_to<bfloat16>();
        const split<> factor{inverse.extract<16>(0), inverse.extract<16>(1)};
        const auto quotient = [&](const float *at) { return product(parts(load_sums(at)), factor).to_vector<bfloat16>(); };
        aie::store_v(c + v * a_tile, a_order(quotient(acc + v * a_tile), quotient(acc + v * a_tile + sum_tile)));
    }
}

}  // namespace

extern "C" void attn_finish(const float *__restrict acc, bfloat16 *__restrict a1, bfloat16 *__restrict c) {
    round_to_nearest_even();
    const attention_state state(a1);
    SEPARATE(state.scores, 4 * sum_row * 4);
    SEPARATE(state.sums, row_tiles * sum_tile * 4);
    for (int piece = 0; piece < 4; ++piece) {
        TRIP("16 rows");
        const float *sums = state.sums + 4 * piece * sum_tile;
        const auto fold = [](const floats<16> &a, const floats<16> &b, int chunk) {
            const floats<32> both = aie::concat(a, b);
            return aie::add(sum16(aie::filter_even(both, chunk)), sum16(aie::filter_odd(both, chunk))).to_vector<float>();
        };
        const floats<16> upper = fold(aie::load_v<16>(sums), aie::load_v<16>(sums + sum_tile), 2);
        const floats<16> lower = fold(aie::load_v<16>(sums + 2 * sum_tile), aie::load_v<16>(sums + 3 * sum_tile), 2);
        const spread inverse(reciprocal(sum16(fold(upper, lower, 1))).to_vector<float>());
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const split<> factor = parts(sum16(inverse.tile[i]));
            aie::store_v(state.scores + (4 * piece + i) * sum_tile, aie::concat(factor.hi, factor.lo).cast_to<float>());
        }
    }
    divide(acc, state.scores, c);
}
