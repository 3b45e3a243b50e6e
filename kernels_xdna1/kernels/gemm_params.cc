// The parameter block at the end of a panel: bias is added, GELU applied if asked for, both on the fp32 sums; what the
// rest of the epilogue must know is kept in the header.
#include "gelu.hpp"

extern "C" void gemm_params(const bfloat16 *__restrict b, float *__restrict acc, int32_t *__restrict hdr) {
    round_to_nearest_even();
    const auto *bias = reinterpret_cast<const float *>(b);
    const auto *words = reinterpret_cast<const int32_t *>(b);
    hdr[word::panel_order] = words[params_order];
    hdr[word::panel_gelu] = words[params_gelu];
    const bool activated = hdr[word::panel_gelu] != 0;
    for (int j = 0; j < sum_columns; j += 2) {
        const auto left = aie::load_v<4>(bias + 4 * j), right = aie::load_v<4>(bias + 4 * j + 4);
        const sums<32> row(aie::concat(aie::concat(left, left, left, left), aie::concat(right, right, right, right)));
        for (int i = 0; i < row_tiles; ++i) {
            float *at = acc + i * sum_row + j * sum_tile;
            const sums<32> x = aie::add(load_sums<32>(at), row);
            store_sums(at, activated ? gelu(x) : x);
        }
    }
}
