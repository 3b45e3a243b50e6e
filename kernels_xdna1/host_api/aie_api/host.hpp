// What only the CPU build has: the state of the core that the kernels can observe, and the switches of the build.
//   AIE_HOST_DEBUG   every load and store is checked for alignment and for lying inside an operand of the call, and
//                    sums can be asked to follow the core's adder bit by bit (core_state::exact, adder.hpp)
//   AIE_HOST_COUNT   every operation is counted in the issue slot that it takes on the core, and kept with the operations
//                    whose results it takes and the loop that it is in: what `kernels_xdna1/loops.py` schedules
// A switch that is off costs nothing.
#pragma once

#ifdef AIE_HOST_COUNT
#include <vector>
#endif

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
#ifdef AIE_HOST_COUNT
    struct { uintptr_t first, last; } operand[16] = {};  // parts of operands, too
#else
    struct { uintptr_t first, last; } operand[8] = {};
#endif
    unsigned operands = 0;
    bool exact = false;
    char error[160] = {};
};

// A process has room for few libraries of the faster kind: builds that leave code out, for tests, and builds that count are
// of the other.
#if defined(AIE_HOST_DYNAMIC_TLS) || defined(AIE_HOST_COUNT)
inline thread_local core_state core;
#else
inline thread_local core_state core __attribute__((tls_model("initial-exec")));
#endif

inline void spend([[maybe_unused]] slot s, [[maybe_unused]] unsigned n = 1) {
#ifdef AIE_HOST_COUNT
    core.count[s] += n;
#endif
}

// Kinds of operations; `name` is none on the core (halves of registers, a register of either file).
enum kind : int32_t { op_load, op_store, op_move, op_multiply, op_round, op_widen, op_copy, op_constant, op_mask, op_name, op_accumulator, trip_begin, trip_end, call_begin, call_end, op_compare };

// An operation of a call: `in` are results that it takes (numbers of operations, -1 none; for a product the sums first),
// `at` is the address of a load or store, a constant's bits, or the name of a loop or function.
struct operation {
    int32_t what, n, bytes, region;
    int32_t in[4];
    uint64_t at;
};

#ifdef AIE_HOST_COUNT
inline thread_local std::vector<operation> trace;
inline int region_of(const void *p) {
    const auto at = reinterpret_cast<uintptr_t>(p);
    for (unsigned i = core.operands; i-- > 0;)  // the last that was told: a part of an operand
        if (core.operand[i].first <= at && at < core.operand[i].last) return int(i);
    return -1;
}
#endif

// Keeps an operation and returns its number.
inline int32_t note([[maybe_unused]] kind what, [[maybe_unused]] unsigned n, [[maybe_unused]] int32_t a = -1,
                    [[maybe_unused]] int32_t b = -1, [[maybe_unused]] int32_t c = -1, [[maybe_unused]] uint64_t at = 0) {
#ifdef AIE_HOST_COUNT
    trace.push_back({what, int32_t(n), 0, -1, {a, b, c, -1}, at});
    return int32_t(trace.size() - 1);
#else
    return -1;
#endif
}
inline int32_t note_memory([[maybe_unused]] kind what, [[maybe_unused]] const void *p, [[maybe_unused]] unsigned bytes,
                           [[maybe_unused]] int32_t value = -1) {
#ifdef AIE_HOST_COUNT
    trace.push_back({what, int32_t((bytes + 31) / 32), int32_t(bytes), region_of(p), {value, -1, -1, -1}, uint64_t(reinterpret_cast<uintptr_t>(p))});
    return int32_t(trace.size() - 1);
#else
    return -1;
#endif
}

// A trip of a loop, and the inside of a function that is not inlined: their objects live as long.
struct trip {
    explicit trip([[maybe_unused]] const char *loop) { note(trip_begin, 0, -1, -1, -1, uint64_t(reinterpret_cast<uintptr_t>(loop))); }
    ~trip() { note(trip_end, 0); }
    trip(const trip &) = delete;
};
struct inside {
    explicit inside([[maybe_unused]] const char *function) { note(call_begin, 0, -1, -1, -1, uint64_t(reinterpret_cast<uintptr_t>(function))); }
    ~inside() { note(call_end, 0); }
    inside(const inside &) = delete;
};
// A part of an operand that a kernel reaches through a restricted pointer of its own.
inline void separate([[maybe_unused]] const void *p, [[maybe_unused]] size_t bytes) {
#ifdef AIE_HOST_COUNT
    const auto first = reinterpret_cast<uintptr_t>(p);
    for (unsigned i = 0; i < core.operands; ++i)
        if (core.operand[i].first == first && core.operand[i].last == first + bytes) return;
    core.operand[core.operands++] = {first, first + bytes};
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
