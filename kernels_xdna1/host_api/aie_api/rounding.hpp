// fp32 to bf16 in the core's ten rounding modes, as captured on a Phoenix NPU (tests/kernels/data/f32_to_bf16.json).
#pragma once

#include <cstdint>

namespace aie::host {

// One value, any mode. Denormals are kept: unlike the multiplier, the conversion does not flush them.
// A NaN keeps its upper bits; if those say "infinity", the lowest bit is set so that it stays a NaN.
inline uint16_t round_one_to_bfloat16(uint32_t x, unsigned mode) {
    const uint32_t kept = x >> 16, cut = x & 0xffff;
    if ((x & 0x7fffffff) > 0x7f800000) return uint16_t(kept & 0x7f ? kept : kept | 1);
    const bool negative = x >> 31, odd = kept & 1, above = cut > 0x8000, half = cut == 0x8000;
    bool up = false;  // away from zero
    switch (mode) {
    case 0: up = negative && cut; break;               // floor
    case 1: up = !negative && cut; break;              // ceil
    case 2: break;                                     // symmetric floor: to zero
    case 3: up = cut; break;                           // symmetric ceil: from zero
    case 8: up = above || (half && negative); break;   // nearest, halves to -inf
    case 9: up = above || (half && !negative); break;  // nearest, halves to +inf
    case 10: up = above; break;                        // nearest, halves to zero
    case 11: up = above || half; break;                // nearest, halves from zero
    case 12: up = above || (half && odd); break;       // nearest, halves to even
    case 13: up = above || (half && !odd); break;      // nearest, halves to odd
    }
    return uint16_t(kept + up);
}

// GCC vectors by element and length.
template <class T, unsigned N> struct lanes_of { typedef T type __attribute__((vector_size(sizeof(T) * N))); };
template <class T, unsigned N> using lanes = typename lanes_of<T, N>::type;

template <unsigned N> inline __attribute__((always_inline)) lanes<uint16_t, N> round_to_bfloat16(lanes<float, N> v, unsigned mode) {
    using wide = lanes<uint32_t, N>;
    const wide x = (wide)v, kept = x >> 16;
    if (mode == 12) [[likely]] {  // nearest even, for all lanes at once
        const wide rounded = (x + 0x7fff + (kept & 1)) >> 16;
        const wide quiet = kept | ((wide)((kept & 0x7f) == 0) & 1);
        return __builtin_convertvector((x & 0x7fffffff) > 0x7f800000 ? quiet : rounded, lanes<uint16_t, N>);
    }
    lanes<uint16_t, N> r;
    for (unsigned i = 0; i < N; ++i) r[i] = round_one_to_bfloat16(x[i], mode);
    return r;
}

}  // namespace aie::host
