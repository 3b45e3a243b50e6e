// O = 0, no scores and no sums yet, and a maximum below every score.
#include "attention.hpp"

extern "C" void attn_init(bfloat16 *__restrict a1, float *__restrict acc) {
    const attention_state state(a1);
    const floats<16> zero = aie::zeros<float, 16>(), least = lanes(-3e38f);
    AT_LEAST(16)
    for (int i = 0; i < block_elements; i += 16) {
        TRIP("zeros");
        aie::store_v(acc + i, zero);
    }
    AT_LEAST(16)
    for (int i = 0; i < 4 * sum_row + row_tiles * sum_tile; i += 16) {
        TRIP("scores and sums");
        aie::store_v(state.scores + i, zero);
    }
    const i16 key = ordered(least.cast_to<int32_t>());
    for (int i = 0; i < 64; i += 16) {
        TRIP("maxima");
        aie::store_v(state.keys + i, key);
        aie::store_v(state.maxima + i, least);
    }
}
