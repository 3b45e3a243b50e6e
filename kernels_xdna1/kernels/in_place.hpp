// Loops that change a block of sums where it is. The compiler can't tell that a store does not change what is read next, so
// every trip would wait for the one before. Two things keep trips apart: the operands of the next trip are read before this
// trip's results are written, and a trip takes its tiles from four quarters of the block, each with a pointer of its own.
#pragma once

#include "common.hpp"

constexpr int quarter = block_elements / 4;

// change(q, i, x, y): y from x, `tiles` tiles of 16 sums from element i of quarter q on.
template <int tiles, class Change> inline void in_quarters([[maybe_unused]] const char *name, float *__restrict acc0, float *__restrict acc1,
                                                           float *__restrict acc2, float *__restrict acc3, Change change) {
    constexpr int step = tiles * sum_tile;
    SEPARATE(acc0, quarter * 4);
    SEPARATE(acc1, quarter * 4);
    SEPARATE(acc2, quarter * 4);
    SEPARATE(acc3, quarter * 4);
    sum16 x0[tiles], x1[tiles], x2[tiles], x3[tiles];
    const auto load = [](const float *p, sum16(&x)[tiles]) {
        UNROLL
        for (int t = 0; t < tiles; ++t) x[t] = load_sums(p + t * sum_tile);
    };
    const auto store = [](float *p, const sum16(&y)[tiles]) {
        UNROLL
        for (int t = 0; t < tiles; ++t) store_sums(p + t * sum_tile, y[t]);
    };
    load(acc0, x0), load(acc1, x1), load(acc2, x2), load(acc3, x3);
    AT_LEAST(16)
    for (int i = 0; i < quarter; i += step) {
        TRIP(name);
        const int ahead = i + step < quarter ? i + step : i;  // the last trip reads its own again
        sum16 y0[tiles], y1[tiles], y2[tiles], y3[tiles];
        change(0, i, x0, y0), change(1, i, x1, y1), change(2, i, x2, y2), change(3, i, x3, y3);
        load(acc0 + ahead, x0), load(acc1 + ahead, x1), load(acc2 + ahead, x2), load(acc3 + ahead, x3);
        store(acc0 + i, y0), store(acc1 + i, y1), store(acc2 + i, y2), store(acc3 + i, y3);
    }
}
template <int tiles, class Change> inline void in_place(const char *name, float *acc, Change change) {
    in_quarters<tiles>(name, acc, acc + quarter, acc + 2 * quarter, acc + 3 * quarter, change);
}
