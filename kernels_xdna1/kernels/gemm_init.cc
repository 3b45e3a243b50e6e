// Sums of a new output block start at zero.
#include "common.hpp"

extern "C" void gemm_init(float *__restrict acc) {
    AT_LEAST(16)
    for (int i = 0; i < block_elements; i += 16) aie::store_v(acc + i, aie::zeros<float, 16>());
}
