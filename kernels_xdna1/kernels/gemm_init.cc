// Sums of a new output block start at zero.
#include "common.hpp"

extern "C" void gemm_init(float *__restrict acc) {
    const floats<16> zero = aie::zeros<float, 16>();
    AT_LEAST(16)
    for (int i = 0; i < block_elements; i += 16) {
        TRIP("zeros");
        aie::store_v(acc + i, zero);
    }
}
