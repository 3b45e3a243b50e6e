// Writes ranges of memory back and drops them from every cache of the CPU: what XRT's sync of a buffer does with
// one clflush per line, here with clflushopt, which does not wait for the line before.

#include <cstdint>

constexpr std::intptr_t LINE = 64;  // bytes; of every x86 processor that has clflushopt

// `ranges`: pairs of byte offset from `base` and byte size. Fences before and after: older writes reach memory,
// younger reads come from it.
extern "C" __attribute__((target("clflushopt"))) void flush(char* base, const std::int64_t* ranges, std::int64_t count) {
  __builtin_ia32_mfence();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto first = reinterpret_cast<std::intptr_t>(base) + ranges[2 * i];
    const auto end = first + ranges[2 * i + 1];
    for (auto line = first & -LINE; line < end; line += LINE) __builtin_ia32_clflushopt(reinterpret_cast<void*>(line));
  }
  __builtin_ia32_mfence();
}
