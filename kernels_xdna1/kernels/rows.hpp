// Row operations: a core owns 16 rows of every block, four row tiles in A order, and works on halves of a tile: two rows
// of eight columns. What a pass over the rows found is kept in the accumulator's memory, one vector per half tile.
#pragma once

#include "arithmetic.hpp"

constexpr int halves = 8;                   // of this core's 16 rows in one tile column
constexpr int my_rows = 4 * a_row;          // elements: this core's share of a block, and a piece of the output

// Where half h of tile column `tile` starts in this core's share.
inline int half_at(int h, int tile) { return h / 2 * a_row + tile * a_tile + h % 2 * 16; }

struct row_state {
    float *acc;
    float *first(int h) const { return acc + 16 * h; }              // layer_norm: pivot;             softmax: maximum
    float *second(int h) const { return acc + 16 * (halves + h); }  // layer_norm: sum of d;          softmax: sum
    float *third(int h) const { return acc + 16 * (2 * halves + h); }  // layer_norm: sum of d^2
};

// Set for the columns of a half tile that lie past the last valid one; `valid` counts from the tile's first column.
inline aie::mask<16> past_the_end(int valid) {
    alignas(64) static constexpr int32_t half_columns[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
    return aie::lt(lanes(int32_t(valid - 1)), aie::load_v<16>(half_columns));
}

// ---- softmax: 2^(t + 1/2), t = x log2(e) = n + f with n the nearest integer; the factor sqrt(2) cancels ----

struct exponent {
    sum16 n, f;
    // Columns past the last valid one and -inf get a number that no maximum can be below, so that 2^t is zero.
    exponent(const v16 &x, int valid) {
        const sum16 scaled = aie::mac(aie::mul(x, small(log2e_lo)), x, small(log2e_hi));
        const auto none = aie::eq(bits(sum16(x)), lanes(int32_t(0xff800000))) | past_the_end(valid);
        const sum16 t(aie::select(scaled.to_vector<float>(), lanes(never), none));
        n = nearest_integer(t);
        f = aie::sub(t, n);
    }
    split<> fraction() const {
        v16 hi;
        return parts(exp2_varying(sum16(lanes(exp2_s0)), f, hi));
    }
    static constexpr float never = -1e38f;
};
