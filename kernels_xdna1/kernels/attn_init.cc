// O = 0, no sum yet, and a maximum below every score.
#include "attention.hpp"

extern "C" void attn_init(bfloat16 *__restrict a1, float *__restrict acc) {
    const attention_state state(a1);
    AT_LEAST(16)
    for (int i = 0; i < block_elements; i += 16) aie::store_v(acc + i, aie::zeros<float, 16>());
    AT_LEAST(16)
    for (int i = 0; i < row_tiles * sum_tile; i += 16) {
        aie::store_v(state.sums + i, aie::zeros<float, 16>());
        aie::store_v(state.maxima + i, lanes(-3e38f));
    }
}
