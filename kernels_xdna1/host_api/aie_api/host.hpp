// What only the CPU build has: the state of the core that the kernels can observe, and the switches of the build.
//   AIE_HOST_DEBUG   every load and store is checked for alignment and for lying inside an operand of the call, and
//                    sums can be asked to follow the core's adder bit by bit (core_state::exact, adder.hpp)
//   AIE_HOST_COUNT   every operation is counted in the issue slot that it takes on the core
// A switch that is off costs nothing.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <immintrin.h>

// The image of this shared object: constants of the kernels lie in it.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start, _end;

namespace aie::host {

// Issue slots of the core. `multiply` is the vector slot: products and additions in accumulators. Integer operations,
// comparisons, selections, shuffles and broadcasts share the move slot with copies, also those between vector registers
// and accumulators; fp32 to bf16 leaves through the store unit (so in the encodings of the compiler's tests for AIE2).
// Address updates are part of loads and stores, and loops cost nothing: `scalar` holds the mode and mask operations only.
enum slot { multiply, load_a, load_b, store, move, scalar, slots };

// Accumulator accesses in memory go through load unit a; everything else takes the unit with less work so far.
struct core_state {
    unsigned rounding = 0;  // power-up: floor, that is truncation for positive numbers
    uint64_t count[slots] = {};
    struct { uintptr_t first, last; } operand[8] = {};
    unsigned operands = 0;
    bool exact = false;
    char error[160] = {};
};

// A process has room for few libraries of the faster kind: builds that leave code out, for tests, are of the other.
#ifdef AIE_HOST_DYNAMIC_TLS
inline thread_local core_state core;
#else
inline thread_local core_state core __attribute__((tls_model("initial-exec")));
#endif

inline void spend([[maybe_unused]] slot s, [[maybe_unused]] unsigned n = 1) {
#ifdef AIE_HOST_COUNT
    core.count[s] += n;
#endif
}

inline void spend_load([[maybe_unused]] unsigned n, [[maybe_unused]] bool accumulator) {
#ifdef AIE_HOST_COUNT
    for (unsigned i = 0; i < n; ++i)
        ++core.count[accumulator || core.count[load_a] < core.count[load_b] ? load_a : load_b];
#endif
}

// Returns false (and keeps the first error for the caller of the kernel) for an access that the core could not make.
inline bool access([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes, [[maybe_unused]] bool writes) {
#ifdef AIE_HOST_DEBUG
    const auto at = reinterpret_cast<uintptr_t>(p);
    const size_t alignment = bytes < 32 ? bytes : 32;  // vector loads and stores are 256 bits wide at most
    const char *cause = at % alignment ? "is misaligned" : "lies outside the operands";
    bool inside = at % alignment == 0 && (core.operands == 0 || (!writes && p >= &__ehdr_start && p < &_end));
    for (unsigned i = 0; i < core.operands && at % alignment == 0; ++i)
        inside |= core.operand[i].first <= at && at + bytes <= core.operand[i].last;
    if (inside) return true;
    if (!core.error[0]) {
        long offset = core.operands ? long(at - core.operand[0].first) : 0;
        for (unsigned i = 0; i < core.operands; ++i)
            if (core.operand[i].first <= at && at < core.operand[i].last) offset = long(at - core.operand[i].first);
        snprintf(core.error, sizeof core.error, "a %s of %zu bytes at offset %ld %s", writes ? "store" : "load", bytes, offset, cause);
    }
    return false;
#else
    return true;
#endif
}

// The core reads and writes zero for denormals in its multiplier; the CPU is told to do so for the length of a call.
class flush_denormals {
    unsigned saved = _mm_getcsr();
public:
    flush_denormals() { _mm_setcsr(saved | 0x8040); }
    ~flush_denormals() { _mm_setcsr(saved); }
    flush_denormals(const flush_denormals &) = delete;
};

}  // namespace aie::host
