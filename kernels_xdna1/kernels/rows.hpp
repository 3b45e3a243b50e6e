// Row operations: a core owns 16 rows of every block, four row tiles in A order, and works on halves of a tile: two rows
// of eight columns. Half v of the 64 in its share lies at 16 v, in the order of memory: rows 4 (v / 16) + 2 (v % 2), columns
// 8 (v / 2 % 8). What a pass over the rows found is kept in the accumulator's memory, one vector per pair of rows ("half
// tile" h: rows 2 h and 2 h + 1), so h = 2 (v / 16) + v % 2.
#pragma once

#include "arithmetic.hpp"

constexpr int halves = 8;                   // pairs of rows
constexpr int my_rows = 4 * a_row;          // elements: this core's share of a block, and a piece of the output

struct row_state {
    float *acc;
    float *first(int h) const { return acc + 16 * h; }              // layer_norm: pivot, then offset; softmax: maximum
    float *second(int h) const { return acc + 16 * (halves + h); }  // layer_norm: sum of d;           softmax: sum
    float *third(int h) const { return acc + 16 * (2 * halves + h); }  // layer_norm: sum of d^2
    float *pivots() const { return acc + 16 * 3 * halves; }         // layer_norm: per row
    float *limbs(int h) const { return acc + 16 * (3 * halves + 1) + 32 * h; }  // layer_norm: 1 / deviation, bf16 [3][16]
};

// Set for the columns of a half tile that lie past the last valid one; `valid` counts from the tile's first column.
inline aie::mask<16> past_the_end(int valid) {
    alignas(64) static constexpr int32_t half_columns[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
    return aie::lt(lanes(int32_t(valid - 1)), aie::load_v<16>(half_columns));
}

// Eight vectors, each a lane's share of two rows, become the sixteen rows' sums: all rows in one tree.
SHARED sum16 fold_rows(const float *parts) {
    INSIDE("fold rows");
    const auto fold = [](const floats<16> &a, const floats<16> &b, int chunk) {
        const floats<32> both = aie::concat(a, b);
        return aie::add(sum16(aie::filter_even(both, chunk)), sum16(aie::filter_odd(both, chunk))).to_vector<float>();
    };
    floats<16> four[4], two[2];
    UNROLL
    for (int i = 0; i < 4; ++i) four[i] = fold(aie::load_v<16>(parts + 32 * i), aie::load_v<16>(parts + 32 * i + 16), 4);
    UNROLL
    for (int i = 0; i < 2; ++i) two[i] = fold(four[2 * i], four[2 * i + 1], 2);
    return sum16(fold(two[0], two[1], 1));
}

// Sixteen rows' numbers, each in the eight lanes of its row of vector h.
SHARED void spread_rows(float *to, sum16 rows) {
    INSIDE("spread rows");
    floats<16> two[2], four[4];
    const floats<16> one = rows.to_vector<float>();
    std::tie(two[0], two[1]) = aie::interleave_zip(one, one, 1);
    UNROLL
    for (int i = 0; i < 2; ++i) std::tie(four[2 * i], four[2 * i + 1]) = aie::interleave_zip(two[i], two[i], 2);
    UNROLL
    for (int i = 0; i < 4; ++i) {
        const auto [low, high] = aie::interleave_zip(four[i], four[i], 4);
        aie::store_v(to + 32 * i, low), aie::store_v(to + 32 * i + 16, high);
    }
}

// ---- softmax: 2^(t + 1/2), t = x log2(e) = n + f with n the nearest integer; the factor sqrt(2) cancels ----

struct exponent {
    sum16 n, f;
    // Columns past the last valid one and -inf get a number that no maximum can be below, so that 2^t is zero.
    exponent(const v16 &x, int valid) {
        const sum16 scaled = mul_pairs(aie::concat(x, x), aie::concat(small(log2e_lo), small(log2e_hi)));
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
