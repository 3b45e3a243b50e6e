// The sums become the output block: rows outside the valid range are zero, the rest is rounded once, in the order that
// the panel's parameter block asked for: A order, or as keys or values for attention. GELU happens on the way if no residual
// came in between. A row that is not valid stays zero, as GELU of zero is.
#include "gelu.hpp"

namespace {

// o % groups for o >= 0 without the division that the core has not.
int remainder(int o, int groups) {
    int d = groups;
    while (d <= o / 2) d *= 2;
    for (; d >= groups; d /= 2)
        if (o >= d) o -= d;
    return o;
}

v16 rounded(const float *tile) { return load_sums(tile).to_vector<bfloat16>(); }

SHARED void as_activations(const float *__restrict acc, bfloat16 *__restrict c) {
    AT_LEAST(32)
    for (int i = 0; i < block_elements; i += 64) {
        TRIP("A order");
        UNROLL
        for (int t = 0; t < 64; t += 32) aie::store_v(c + i + t, a_order(rounded(acc + i + t), rounded(acc + i + t + sum_tile)));
    }
}

SHARED void as_keys(const float *__restrict acc, bfloat16 *__restrict c) {  // tiles 8 columns x 4 rows: both transposed
    AT_LEAST(32)
    for (unsigned v = 0; v < row_tiles * a_columns; ++v) {
        TRIP("key order");
        const v16 left = rounded(acc + v * a_tile), right = rounded(acc + v * a_tile + sum_tile);
        aie::store_v(c + (v % a_columns * row_tiles + v / a_columns) * b_tile,
                     aie::concat(aie::transpose(left, 4, 4), aie::transpose(right, 4, 4)));
    }
}

SHARED void as_values(const float *__restrict acc, bfloat16 *__restrict c) {  // tiles 8 rows x 4 columns: two row tiles
    AT_LEAST(32)
    for (unsigned v = 0; v < row_tiles / 2 * sum_columns; ++v) {
        TRIP("value order");
        const float *at = acc + v / sum_columns * 2 * sum_row + v % sum_columns * sum_tile;
        aie::store_v(c + v * b_tile, aie::concat(rounded(at), rounded(at + sum_row)));
    }
}

// Zeros in the sums of the rows that are not valid: few blocks have any.
SHARED void clear_rows(float *acc, int first, int end) {
    alignas(64) static constexpr int32_t tile_rows[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const i16 row = aie::load_v<16>(tile_rows);
    for (int i = 0; i < row_tiles; ++i) {
        TRIP("rows to clear");
        if (4 * i >= first && 4 * i + 4 <= end) continue;
        const auto out = aie::lt(row, lanes(first - 4 * i)) | aie::lt(lanes(end - 4 * i - 1), row);
        for (int j = 0; j < sum_columns; ++j) {
            TRIP("clear");
            float *at = acc + i * sum_row + j * sum_tile;
            aie::store_v(at, aie::select(aie::load_v<16>(at), lanes(0.0f), out));
        }
    }
}

}  // namespace

extern "C" void gemm_finish(float *__restrict acc, bfloat16 *__restrict c, const int32_t *__restrict hdr, int32_t o, int32_t row) {
    round_to_nearest_even();
    const int top = 64 * (4 * remainder(o, hdr[word::groups]) + row);
    const int first = hdr[word::first_row] - top, end = hdr[word::end_row] - top;
    if (first > 0 || end < 64) clear_rows(acc, first, end);
    const int order = hdr[word::panel_order];
    if (order == order_k) as_keys(acc, c);
    else if (order == order_v) as_values(acc, c);
    else if (finish_activates(hdr)) activate(acc, c, block_elements / 16);
    else as_activations(acc, c);
}
