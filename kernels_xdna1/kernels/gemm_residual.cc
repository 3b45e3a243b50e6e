// acc += a, if the residual block is this column's. As a product with one: widening would take the move slot.
#include "in_place.hpp"

extern "C" void gemm_residual(const bfloat16 *__restrict a, float *__restrict acc, int32_t q, int32_t col) {
    if (q != col) return;
    const v16 one = small(1);
    in_place<2>("residual", acc, [&](int part, int i, const sum16 (&x)[2], sum16 (&y)[2]) {
        const v32 tile = aie::load_v<32>(a + part * quarter + i);
        y[0] = aie::mac(x[0], aie::filter_even(tile, 4), one);
        y[1] = aie::mac(x[1], aie::filter_odd(tile, 4), one);
    });
}
