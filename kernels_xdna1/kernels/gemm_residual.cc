// acc += a, if the residual block is this column's.
#include "common.hpp"

extern "C" void gemm_residual(const bfloat16 *__restrict a, float *__restrict acc, int32_t q, int32_t col) {
    if (q != col) return;
    AT_LEAST(16)
    for (int i = 0; i < row_tiles * a_columns; ++i) {
        const v32 tile = aie::load_v<32>(a + i * a_tile);
        const v16 left = aie::filter_even(tile, 4), right = aie::filter_odd(tile, 4);
        float *at = acc + 2 * i * sum_tile;
        store_sums(at, aie::add(load_sums(at), sum16(left)));
        store_sums(at + sum_tile, aie::add(load_sums(at + sum_tile), sum16(right)));
    }
}
