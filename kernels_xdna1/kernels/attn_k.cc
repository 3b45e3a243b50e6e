// One key block: scores, their running maximum, P = 2^(score - maximum) in A order, and O and the sums brought to that
// maximum.
//
// The scores of 16 rows at a time fit beside everything else. A score is t + 1/2, and t - m = n + f, n an integer, |f| <= 1/2.
// 2^(n + f + 1/2) is 2^n (s0 + f + f q(f)), q a square: so one addition
//     (n + f + f q) + (98304 + 127 + s0 - 1)
// leaves the bf16 number in the low half of the fp32 word, rounded once (see `power`). |q| < 1/5: rounding it and f to bf16
// for their product costs little: the output over 1,500 random keys is 2.35e-3 from float64, relative L2, where powers in
// fp32 left 2.34e-3. The maximum m is the nearest integer to the row's largest t, so that scaling by its
// change is exact; a row tile in which no m changed leaves O alone. Masked keys are very negative but finite numbers,
// whose power is exactly zero. A score that is infinite or NaN reaches the sum as f * 0 = NaN.
#include "attention.hpp"
#include "stripe.hpp"

namespace {

inline sum16 scaled(const sum16 &score, const split<> &scale) {
    return plus_product(sum16(lanes(-0.5f)), parts(score), scale);
}

// Keys from `valid` on get a score that none is below.
void mask(float *scores, int valid) {
    alignas(64) static constexpr int32_t tile_columns[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    const i16 column = aie::load_v<16>(tile_columns);
    const floats<16> none = lanes(-1e30f);
    const int whole = valid > 0 ? valid / 4 : 0;
    for (int i = 0; i < 4; ++i) {
        TRIP("rows to mask");
        float *row = scores + i * sum_row;
        for (int j = whole; j < sum_columns; ++j) {
            TRIP("mask");
            float *at = row + j * sum_tile;
            aie::store_v(at, aie::select(aie::load_v<16>(at), none, aie::lt(lanes(int32_t(valid - 1 - 4 * j)), column)));
        }
    }
}

// The largest score of each of the 16 rows as an ordered integer: elementwise over each row tile, then all four at once.
SHARED i16 row_keys(const float *__restrict scores) {
    INSIDE("row keys");
    i16 key[4];
    UNROLL
    for (int i = 0; i < 4; ++i) {
        const auto *at = reinterpret_cast<const int32_t *>(scores + i * sum_row);
        extremes found{aie::load_v<16>(at), aie::load_v<16>(at)};
        UNROLL
        for (int j = 1; j < sum_columns; ++j) found.include(aie::load_v<16>(at + j * sum_tile));
        key[i] = aie::select(found.most, aie::sub(lanes(int32_t(0x7fffffff)), found.least), aie::lt(found.most, lanes(0)));
    }
    const auto fold = [](const i16 &a, const i16 &b, int chunk) {
        const ints<32> both = aie::concat(a, b);
        return aie::max(aie::filter_even(both, chunk), aie::filter_odd(both, chunk));
    };
    return fold(fold(key[0], key[1], 2), fold(key[2], key[3], 2), 1);
}

// O and a row tile's sums times a power of two.
SHARED void rescale(float *__restrict o, float *__restrict sums, v16 factor) {
    INSIDE("rescale");
    store_sums(sums, product(parts(load_sums(sums)), factor));
    sum16 x0 = load_sums(o), x1 = load_sums(o + sum_tile);
    AT_LEAST(8)
    for (int j = 0; j < sum_row; j += 2 * sum_tile) {
        TRIP("rescale");
        const float *ahead = o + (j + 2 * sum_tile < sum_row ? j + 2 * sum_tile : j);
        const sum16 y0 = product(parts(x0), factor), y1 = product(parts(x1), factor);
        x0 = load_sums(ahead), x1 = load_sums(ahead + sum_tile);
        store_sums(o + j, y0), store_sums(o + j + sum_tile, y1);
    }
}

// P of a piece from its scores, which become zero for the next product, and its rows' sums.
SHARED void probabilities(float *__restrict scores, const float *__restrict maxima, float *__restrict sums, bfloat16 *__restrict p,
                          split<> scale) {
    INSIDE("probabilities");
    const sum16 magic(lanes(12582912.0f)), s1(lanes(probability_s1)), s2(lanes(probability_s2)), base(lanes(98304.0f + 127 + probability_s0 - 1));
    const v16 s3 = small(probability_s3);
    const v32 one = small<32>(1), nothing = small<32>(0);
    const floats<16> none = lanes(0.0f);
    const i16 zero = lanes(std::bit_cast<int32_t>(98304.0f));
    AT_LEAST(32)
    for (unsigned v = 0; v < 4 * a_columns; ++v) {
        TRIP("probabilities");
        const unsigned row = v / a_columns * sum_tile;
        const sum16 maximum = load_sums(maxima + row);
        const auto tile = [&](float *score, v16 &f) {
            const sum16 t = aie::sub(scaled(load_sums(score), scale), maximum);
            aie::store_v(score, none);
            f = aie::sub(t, aie::sub(aie::add(t, magic), magic)).to_vector<bfloat16>();
            const v16 inner = aie::mac(s2, f, s3).to_vector<bfloat16>();
            const v16 q = aie::mac(s1, f, inner).to_vector<bfloat16>();
            return aie::max(bits(aie::add(aie::mac(t, f, q), base)), zero);
        };
        v16 left, right;
        const i16 x = tile(scores + v * 2 * sum_tile, left), y = tile(scores + v * 2 * sum_tile + sum_tile, right);
        const v32 both = aie::filter_even(aie::concat(x, y).cast_to<int16_t>()).cast_to<bfloat16>();
        const sum16 sum = mac_pairs(load_sums(sums + row), aie::concat(left, right), nothing);
        store_sums(sums + row, mac_pairs(sum, both, one));
        aie::store_v(p + v * a_tile, a_order(both.extract<16>(0), both.extract<16>(1)));
    }
}

}  // namespace

extern "C" void attn_k(const bfloat16 *__restrict b, const bfloat16 *__restrict c, bfloat16 *__restrict a0,
                       bfloat16 *__restrict a1, float *__restrict acc, const int32_t *__restrict hdr, int32_t k) {
    round_to_nearest_even();
    const attention_state state(a1);
    SEPARATE(state.scores, 4 * sum_row * 4);
    SEPARATE(state.sums, row_tiles * sum_tile * 4);
    SEPARATE(state.spread_maxima, 4 * sum_tile * 4);
    const auto constant = [&](int at) { return from_bits(lanes(hdr[at])).to_vector<bfloat16>(); };
    const split<> scale{constant(word::scale_hi), constant(word::scale_lo)};
    const int valid = hdr[word::valid] - 64 * k;
    for (int piece = 0; piece < 4; ++piece) {
        TRIP("16 rows");
        product_of_stripes(c + piece * 4 * a_row, b, state.scores, 1);
        if (valid < 64) mask(state.scores, valid);
        int32_t *keys = state.keys + 16 * piece;
        float *maxima = state.maxima + 16 * piece, *sums = state.sums + 4 * piece * sum_tile;
        const i16 key = aie::max(aie::load_v<16>(keys), row_keys(state.scores));
        aie::store_v(keys, key);
        const sum16 now = nearest_integer(scaled(from_bits(ordered(key)), scale)), before = load_sums(maxima);
        store_sums(maxima, now);
        const spread maximum(now.to_vector<float>());
        UNROLL
        for (int i = 0; i < 4; ++i) aie::store_v(state.spread_maxima + i * sum_tile, maximum.tile[i]);
        if (!aie::eq(bits(before), bits(now)).full()) {
            const spread change(aie::sub(before, now).to_vector<float>());
            UNROLL
            for (int i = 0; i < 4; ++i) {
                if (aie::eq(change.tile[i].template cast_to<int32_t>(), lanes(0)).full()) continue;
                rescale(acc + (4 * piece + i) * sum_row, sums + i * sum_tile, power(sum16(change.tile[i])));
            }
        }
        probabilities(state.scores, state.spread_maxima, sums, a0 + piece * 4 * a_row, scale);
    }
}
