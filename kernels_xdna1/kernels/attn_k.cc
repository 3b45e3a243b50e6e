// One key block: scores, their running maximum, P = 2^(score - maximum) in A order, and O and the sums brought to that
// maximum.
//
// The scores of 16 rows at a time fit beside everything else. A score t = n + 1/2 + f, n an integer, |f| <= 1/2, is turned
// at once into n + 2^(f + 1/2) - 1: this needs no maximum, and `power` makes 2^(t - m) of it by one addition each for m and
// the exponent's bias. (The constant term of 2^(f + 1/2) - 1 goes with m.) The maximum is the largest n, an integer, so
// scaling by its change is exact; a row tile in which no maximum changed leaves O alone. Masked keys are very negative
// but finite numbers, whose power is exactly zero. A score that is infinite or NaN reaches the sum as f * 0 = NaN.
#include "attention.hpp"
#include "stripe.hpp"

namespace {

// Scores of one row tile, in place; maxima of n per lane; NaN into the sum.
extremes make_logarithmic(float *scores, const i16 &start, sum16 &sum, const split<> &scale, int valid) {
    alignas(64) static constexpr int32_t tile_columns[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    const i16 column = aie::load_v<16>(tile_columns);
    extremes found{start, start};
    const auto tile = [&](int j) {
        sum16 t = plus_product(sum16(lanes(-0.5f)), parts(load_sums(scores + j * sum_tile)), scale);
        if (valid < 64)
            t = sum16(aie::select(t.to_vector<float>(), lanes(-1e30f), aie::lt(lanes(valid - 1 - 4 * j), column)));
        const sum16 n = nearest_integer(t);
        v16 f;
        store_sums(scores + j * sum_tile, exp2_varying(n, aie::sub(t, n), f));
        found.include(bits(n));
        return f;
    };
    AT_LEAST(8)
    for (int j = 0; j < sum_columns; j += 2) {
        const v16 left = tile(j), right = tile(j + 1);
        sum = mac_pairs(sum, aie::concat(left, right), small<32>(0));
    }
    return found;
}

}  // namespace

extern "C" void attn_k(const bfloat16 *__restrict b, const bfloat16 *__restrict c, bfloat16 *__restrict a0,
                       bfloat16 *__restrict a1, float *__restrict acc, const int32_t *__restrict hdr, int32_t k) {
    round_to_nearest_even();
    const attention_state state(a1);
    const auto constant = [&](int at) { return from_bits(lanes(hdr[at])).to_vector<bfloat16>(); };
    const split<> scale{constant(word::scale_hi), constant(word::scale_lo)};
    const int valid = hdr[word::valid] - 64 * k;
    for (int i = 0; i < row_tiles; ++i) {
        if (i % 4 == 0) stripe(c + i * a_row, b, state.scores, true);
        float *scores = state.scores + i % 4 * sum_row;
        sum16 sum = load_sums(state.sums + i * sum_tile);
        const i16 before = bits(load_sums(state.maxima + i * sum_tile));
        const i16 now = row_maxima<4>(make_logarithmic(scores, before, sum, scale, valid));
        const sum16 maximum = from_bits(now);
        if (!aie::eq(before, now).full()) {
            const v16 factor = power(aie::sub(from_bits(before), maximum));
            sum = product(parts(sum), factor);
            AT_LEAST(16)
            for (int j = 0; j < sum_columns; ++j) {
                float *o = acc + i * sum_row + j * sum_tile;
                store_sums(o, product(parts(load_sums(o)), factor));
            }
            store_sums(state.maxima + i * sum_tile, maximum);
        }
        const sum16 offset = aie::sub(maximum, sum16(lanes(exp2_s0 - 1)));
        AT_LEAST(8)
        for (int j = 0; j < a_columns; ++j) {
            const v16 left = power(aie::sub(load_sums(scores + 2 * j * sum_tile), offset));
            const v16 right = power(aie::sub(load_sums(scores + (2 * j + 1) * sum_tile), offset));
            sum = mac_pairs(sum, aie::concat(left, right), small<32>(1));
            aie::store_v(a0 + i * a_row + j * a_tile, a_order(left, right));
        }
        store_sums(state.sums + i * sum_tile, sum);
    }
}
