// What the CPU build exports beside the kernels: the scope of a call, counts, errors, and the bare arithmetic.
#pragma once

#include <initializer_list>

#include "aie.hpp"

namespace aie::host {

struct operand {
    const void *first;
    size_t bytes;
};

// A kernel call: power-up rounding, denormals flushed, and (debug) the memory that the kernel may touch.
class call {
    flush_denormals flush;

public:
    call([[maybe_unused]] std::initializer_list<operand> operands) {
        core.rounding = 0;
#ifdef AIE_HOST_COUNT
        trace.clear();
#endif
#if defined(AIE_HOST_DEBUG) || defined(AIE_HOST_COUNT)
        core.error[0] = 0;
        core.operands = 0;
        for (const operand &o : operands) {
            const auto first = reinterpret_cast<uintptr_t>(o.first);
            core.operand[core.operands++] = {first, first + o.bytes};
        }
#endif
    }
};

}  // namespace aie::host

extern "C" {

const char *host_error() { return aie::host::core.error[0] ? aie::host::core.error : nullptr; }

void host_exact(int32_t on) { aie::host::core.exact = on != 0; }

void host_counts(uint64_t *out) {
    for (int i = 0; i < aie::host::slots; ++i) out[i] = aie::host::core.count[i], aie::host::core.count[i] = 0;
}

// The operations of the last call of a counting build.
const aie::host::operation *host_trace([[maybe_unused]] int32_t *n) {
#ifdef AIE_HOST_COUNT
    *n = int32_t(aie::host::trace.size());
    return aie::host::trace.data();
#else
    *n = 0;
    return nullptr;
#endif
}

// c[4][4] = a[4][8] b[8][4] as the core's adder computes it (exact) or as the fast path of the CPU does.
void host_matrix_unit(const uint16_t *a, const uint16_t *b, float *c, int32_t exact) {
    if (exact) {
        for (int i = 0; i < 16; ++i) c[i] = aie::detail::exact_dot<8>(a + i / 4 * 8, 1, b + i % 4, 4, 0);
        return;
    }
    const aie::host::flush_denormals flush;
    aie::vector<bfloat16, 32> x, y;
    __builtin_memcpy(&x.v, a, 64);
    __builtin_memcpy(&y.v, b, 64);
    aie::mmul<4, 8, 4, bfloat16, bfloat16> unit;
    unit.mac(x, y);
    const auto sums = unit.to_accum();
    __builtin_memcpy(c, &sums.v, 64);
}

void host_exact_add(const float *a, const float *b, float *out, int32_t n) {
    for (int i = 0; i < n; ++i) out[i] = aie::detail::exact_add(a[i], b[i]);
}

void host_round(const uint32_t *in, uint16_t *out, int32_t n, int32_t mode) {
    for (int i = 0; i < n; ++i) out[i] = aie::host::round_one_to_bfloat16(in[i], unsigned(mode));
}
}
