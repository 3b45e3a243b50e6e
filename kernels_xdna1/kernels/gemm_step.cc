// acc += a * b, one block of k: a in A order, b in B order. Also attention's second product, O += P V.
#include "stripe.hpp"

extern "C" void gemm_step(const bfloat16 *__restrict a, const bfloat16 *__restrict b, float *__restrict acc) {
    for (int i = 0; i < row_tiles; i += 4) stripe(a + i * a_row, b, acc + i * sum_row, false);
}
