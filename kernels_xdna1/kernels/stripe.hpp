// The matrix product that gemm_step and attn_k share: rows of A order, 16 at a time, times a block of B order.
#pragma once

#include "common.hpp"

// sums[4][16] tiles += a[4][8] tiles * b[8][16] tiles, `stripes` times. A trip makes 4 x 4 tiles in sixteen accumulators, all
// of k in its body. (Form and cycles: S41 of mlir-aie's record, 175 a trip.)
SHARED void product_of_stripes(const bfloat16 *__restrict a, const bfloat16 *__restrict b, float *__restrict sums, unsigned stripes) {
    INSIDE("product");
    using unit = aie::mmul<4, 8, 4, bfloat16, bfloat16, accauto>;
    AT_LEAST(4)
    for (unsigned v = 0; v < 4 * stripes; ++v) {
        TRIP("4 x 4 tiles");
        const unsigned n = v % 4 * 4;
        float *at = sums + v / 4 * 4 * sum_row + n * sum_tile;
        unit c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33;
        const auto row = [&](float *p, unit &u, unit &v, unit &w, unit &x) {
            u = unit(load_sums(p)), v = unit(load_sums(p + sum_tile));
            w = unit(load_sums(p + 2 * sum_tile)), x = unit(load_sums(p + 3 * sum_tile));
        };
        row(at, c00, c01, c02, c03), row(at + sum_row, c10, c11, c12, c13);
        row(at + 2 * sum_row, c20, c21, c22, c23), row(at + 3 * sum_row, c30, c31, c32, c33);
        const bfloat16 *left = a + v / 4 * 4 * a_row, *top = b + n * b_tile;
        UNROLL
        for (int k = 0; k < a_columns; ++k) {
            const v32 x0 = aie::load_v<32>(left), x1 = aie::load_v<32>(left + a_row);
            const v32 x2 = aie::load_v<32>(left + 2 * a_row), x3 = aie::load_v<32>(left + 3 * a_row);
            const v32 y0 = aie::load_v<32>(top), y1 = aie::load_v<32>(top + b_tile);
            const v32 y2 = aie::load_v<32>(top + 2 * b_tile), y3 = aie::load_v<32>(top + 3 * b_tile);
            left += a_tile, top += sum_columns * b_tile;
            c00.mac(x0, y0), c01.mac(x0, y1), c02.mac(x0, y2), c03.mac(x0, y3);
            c10.mac(x1, y0), c11.mac(x1, y1), c12.mac(x1, y2), c13.mac(x1, y3);
            c20.mac(x2, y0), c21.mac(x2, y1), c22.mac(x2, y2), c23.mac(x2, y3);
            c30.mac(x3, y0), c31.mac(x3, y1), c32.mac(x3, y2), c33.mac(x3, y3);
        }
        const auto keep = [&](float *p, const unit &u, const unit &v, const unit &w, const unit &x) {
            store_sums(p, u.to_accum()), store_sums(p + sum_tile, v.to_accum());
            store_sums(p + 2 * sum_tile, w.to_accum()), store_sums(p + 3 * sum_tile, x.to_accum());
        };
        keep(at, c00, c01, c02, c03), keep(at + sum_row, c10, c11, c12, c13);
        keep(at + 2 * sum_row, c20, c21, c22, c23), keep(at + 3 * sum_row, c30, c31, c32, c33);
    }
}
