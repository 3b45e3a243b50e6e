// The matrix product that gemm_step and attn_k share: 16 rows of A order times a block of B order.
#pragma once

#include "common.hpp"

// sums[4][16] tiles (+)= a[4][8] tiles * b[8][16] tiles, 16 accumulators at a time. With `fresh` the sums start at zero.
SHARED void stripe(const bfloat16 *__restrict a, const bfloat16 *__restrict b, float *__restrict sums, bool fresh) {
    using unit = aie::mmul<4, 8, 4, bfloat16, bfloat16, accauto>;
    for (int n = 0; n < sum_columns; n += 4) {
        unit c[4][4];
        if (!fresh)
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) c[i][j] = unit(load_sums(sums + i * sum_row + (n + j) * sum_tile));
        AT_LEAST(8)
        for (int k = 0; k < a_columns; ++k) {
            v32 x[4], y[4];
            for (int i = 0; i < 4; ++i) {
                x[i] = aie::load_v<32>(a + i * a_row + k * a_tile);
                y[i] = aie::load_v<32>(b + (k * sum_columns + n + i) * b_tile);
            }
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) c[i][j].mac(x[i], y[j]);
        }
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) store_sums(sums + i * sum_row + (n + j) * sum_tile, c[i][j].to_accum());
    }
}
