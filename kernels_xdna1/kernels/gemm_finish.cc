// The sums become the output block: rows outside the valid range are zero, the rest is rounded once, in the order that
// the panel's parameter block asked for: A order, or as keys or values for attention.
#include "common.hpp"

namespace {

// o % groups for o >= 0 without the division that the core has not.
int remainder(int o, int groups) {
    int d = groups;
    while (d <= o / 2) d *= 2;
    for (; d >= groups; d /= 2)
        if (o >= d) o -= d;
    return o;
}

v16 rounded(const float *tile, const v16 &zero, const aie::mask<16> &invalid) {
    return aie::select(load_sums(tile).to_vector<bfloat16>(), zero, invalid);
}

}  // namespace

extern "C" void gemm_finish(const float *__restrict acc, bfloat16 *__restrict c, const int32_t *__restrict hdr, int32_t o, int32_t row) {
    round_to_nearest_even();
    const int first = 64 * (4 * remainder(o, hdr[word::groups]) + row);
    const int order = hdr[word::panel_order];
    // Row of each lane of a 4x4 tile.
    alignas(64) static constexpr int32_t tile_rows[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const i16 lane_rows = aie::add(aie::load_v<16>(tile_rows), lanes(first));
    const v16 zero = small(0);
    const auto invalid = [&](int i) {
        const i16 r = aie::add(lane_rows, lanes(4 * i));
        return aie::lt(r, lanes(hdr[word::first_row])) | aie::lt(lanes(hdr[word::end_row] - 1), r);
    };
    if (order == order_v) {  // tiles 8 rows x 4 columns: two row tiles one below the other
        for (int i = 0; i < row_tiles; i += 2) {
            const auto upper = invalid(i), lower = invalid(i + 1);
            for (int j = 0; j < sum_columns; ++j) {
                const float *at = acc + i * sum_row + j * sum_tile;
                aie::store_v(c + (i / 2 * sum_columns + j) * b_tile, aie::concat(rounded(at, zero, upper), rounded(at + sum_row, zero, lower)));
            }
        }
        return;
    }
    for (int i = 0; i < row_tiles; ++i) {
        const auto out = invalid(i);
        for (int j = 0; j < a_columns; ++j) {
            const float *at = acc + i * sum_row + 2 * j * sum_tile;
            const v16 left = rounded(at, zero, out), right = rounded(at + sum_tile, zero, out);
            if (order == order_k)  // tiles 8 columns x 4 rows: both transposed
                aie::store_v(c + (j * row_tiles + i) * b_tile, aie::concat(aie::transpose(left, 4, 4), aie::transpose(right, 4, 4)));
            else
                aie::store_v(c + (i * a_columns + j) * a_tile, a_order(left, right));
        }
    }
}
