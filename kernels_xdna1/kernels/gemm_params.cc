// The parameter block at the end of a panel: bias is added to the fp32 sums; what the rest of the epilogue must know is kept
// in the header. GELU is left to gemm_finish where that can do it (`finish_activates`).
#include "gelu.hpp"
#include "in_place.hpp"

extern "C" void gemm_params(const bfloat16 *__restrict b, float *__restrict acc, int32_t *__restrict hdr) {
    round_to_nearest_even();
    const auto *bias = reinterpret_cast<const float *>(b);
    const auto *words = reinterpret_cast<const int32_t *>(b);
    hdr[word::panel_order] = words[params_order];
    hdr[word::panel_gelu] = words[params_gelu];
    sum16 row;
    in_place<1>("bias", acc, [&](int part, int i, const sum16 (&x)[1], sum16 (&y)[1]) {
        if (part == 0) {
            const auto four = aie::load_v<4>(bias + i / 4 % 64);
            row = sum16(aie::concat(four, four, four, four));
        }
        y[0] = aie::add(x[0], row);
    });
    if (hdr[word::panel_gelu] == 0 || finish_activates(hdr)) return;
    // In place, where no trip can begin before the last one's results are written: two tiles share its length. Only the
    // second convolution of a Whisper encoder has both GELU and a residual.
    const auto *sums = reinterpret_cast<const int32_t *>(acc);
    for (int i = 0; i < block_elements; i += 2 * sum_tile) {
        TRIP("gelu in place");
        const i16 first = aie::load_v<16>(sums + i), second = aie::load_v<16>(sums + i + sum_tile);
        const sum16 y0 = gelu(first), y1 = gelu(second);
        store_sums(acc + i, y0), store_sums(acc + i + sum_tile, y1);
    }
}
