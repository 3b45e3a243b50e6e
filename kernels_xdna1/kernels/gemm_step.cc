// acc += a * b, one block of k: a in A order, b in B order. Also attention's second product, O += P V.
#include "stripe.hpp"

extern "C" void gemm_step(const bfloat16 *__restrict a, const bfloat16 *__restrict b, float *__restrict acc) {
    product_of_stripes(a, b, acc, 4);
}
