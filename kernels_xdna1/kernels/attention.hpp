// What the attention kernels keep in the second held A object.
#pragma once

#include "arithmetic.hpp"

// A piece is 16 rows, four row tiles. Rows of a piece are the lanes of one vector; a tile's lanes are [4 rows][4 columns].
struct attention_state {
    float *scores;   // of one piece, fp32 tiles
    float *sums;     // per row tile: each lane's sum of p
    float *spread_maxima;  // the piece's, per row tile
    int32_t *keys;   // per row: the largest score so far, as an integer in the order of floats
    float *maxima;   // per row: the integer that exponents are relative to
    explicit attention_state(bfloat16 *a1)
        : scores(reinterpret_cast<float *>(a1)), sums(scores + 4 * sum_row), spread_maxima(sums + row_tiles * sum_tile),
          keys(reinterpret_cast<int32_t *>(spread_maxima + 4 * sum_tile)), maxima(reinterpret_cast<float *>(keys + 64)) {}
};

// An integer that is ordered as the float is, and back. A NaN without a sign is above all.
inline i16 ordered(const i16 &word) {
    return aie::select(word, aie::sub(lanes(int32_t(0x7fffffff)), word), aie::lt(word, lanes(0)));
}

// Each row's number in the four lanes of its row in the piece's tile `tile`.
struct spread {
    floats<16> tile[4];
    explicit spread(const floats<16> &rows) {
        const auto [low, high] = aie::interleave_zip(rows, rows, 1);
        std::tie(tile[0], tile[1]) = aie::interleave_zip(low, low, 2);
        std::tie(tile[2], tile[3]) = aie::interleave_zip(high, high, 2);
    }
};
