// The core's adder: what fp32 sums of products, additions and subtractions in accumulators come to, bit by bit.
#pragma once

#include "host.hpp"

namespace aie::detail {

// As captured on a Phoenix NPU (tests/kernels/data/mmul_4x8x4_bf16.json): denormal inputs are zeros; the terms of a sum
// are aligned to the largest exponent among them, on a grid whose last bit is 2^-23 of that exponent's unit, each rounded
// to nearest even; their sum is exact and is rounded once, to nearest even, to fp32. Results below the normal range
// become zero. That the accumulator takes part as one more addend of the same grid, and that additions and subtractions
// are sums of two such terms, is not in these captures, which all start from zero: it is what FIM43-Redeye/xdna-emu
// states of this core (vector_float.rs, which that project reports as bit-exact on its sweeps of special values).
class exact_sum {
    static constexpr int grid = 23;   // fraction bits below the unit of the largest exponent
    int64_t mantissa[9];
    int exponent[9], terms = 0, top = -100000;
    float special = 0;                // infinities and NaN follow IEEE rules
    bool is_special = false;

    void term(int64_t m, int e) {
        mantissa[terms] = m, exponent[terms++] = e;
        if (e > top) top = e;
    }

public:
    // x y of two bf16 numbers, or its negative.
    void product(uint16_t x, uint16_t y, bool negative = false) {
        y ^= uint16_t(negative ? 0x8000 : 0);
        const int ex = x >> 7 & 255, ey = y >> 7 & 255;
        if (ex == 255 || ey == 255) {
            const float fx = ex ? std::bit_cast<float>(uint32_t(x) << 16) : 0, fy = ey ? std::bit_cast<float>(uint32_t(y) << 16) : 0;
            special += fx * fy;
            is_special = true;
        } else if (ex && ey) {
            const int64_t m = int64_t((x & 127) | 128) * ((y & 127) | 128);  // 14 fraction bits
            term((x ^ y) >> 15 ? -m * 512 : m * 512, ex + ey - 254);         // 23 fraction bits
        }
    }

    void addend(float c) {
        const uint32_t bits = std::bit_cast<uint32_t>(c);
        const int e = int(bits >> 23 & 255);
        if (e == 255) special += c, is_special = true;
        else if (e) term((bits >> 31 ? -1 : 1) * int64_t((bits & 0x7fffff) | 0x800000), e - 127);
    }

    float value() const {
        if (is_special) return special;
        if (!terms) return 0;
        int64_t sum = 0;
        for (int i = 0; i < terms; ++i) {
            const int shift = top - exponent[i];
            int64_t m = mantissa[i] < 0 ? -mantissa[i] : mantissa[i];
            if (shift > 40) m = 0;
            else if (shift) {
                const int64_t half = int64_t(1) << (shift - 1), cut = m & (2 * half - 1);
                m >>= shift;
                m += cut > half || (cut == half && (m & 1));
            }
            sum += mantissa[i] < 0 ? -m : m;
        }
        if (!sum) return 0;
        const bool negative = sum < 0;
        uint64_t s = negative ? -sum : sum;
        int e = top - grid + 150;     // biased exponent if the leading bit is bit 23
        const int excess = 63 - __builtin_clzll(s) - 23;
        if (excess > 0) {
            const uint64_t half = uint64_t(1) << (excess - 1), cut = s & (2 * half - 1);
            s >>= excess;
            s += cut > half || (cut == half && (s & 1));
            if (s >> 24) s >>= 1, ++e;
        } else {
            s <<= -excess;
        }
        e += excess;
        const uint32_t sign = negative ? 0x80000000u : 0;
        if (e >= 255) return std::bit_cast<float>(sign | 0x7f800000u);
        if (e <= 0) return std::bit_cast<float>(sign);
        return std::bit_cast<float>(uint32_t(sign | uint32_t(e) << 23 | (s & 0x7fffff)));
    }
};

inline float exact_add(float a, float b) {
    exact_sum sum;
    sum.addend(a), sum.addend(b);
    return sum.value();
}

// c plus `terms` products: one output of the matrix unit (8), one lane of an element-wise multiply-add (1 or 2).
template <int terms>
inline float exact_dot(const uint16_t *a, unsigned stride_a, const uint16_t *b, unsigned stride_b, float c, bool negative = false) {
    exact_sum sum;
    for (int k = 0; k < terms; ++k) sum.product(a[k * stride_a], b[k * stride_b], negative);
    sum.addend(c);
    return sum.value();
}

// Lane i of c plus or minus the products of lanes i, i + N, ... of a and b.
template <unsigned N, int terms, class Sums, class Factors>
inline Sums exact_lanes(Sums c, const Factors &a, const Factors &b, bool negative = false) {
    uint16_t x[terms * N], y[terms * N];
    __builtin_memcpy(x, &a, sizeof x);
    __builtin_memcpy(y, &b, sizeof y);
    for (unsigned i = 0; i < N; ++i) c[i] = exact_dot<terms>(x + i, N, y + i, N, c[i], negative);
    return c;
}
template <unsigned N, class Sums> inline Sums exact_lanes(Sums a, const Sums &b, bool negative) {
    for (unsigned i = 0; i < N; ++i) a[i] = exact_add(a[i], negative ? -b[i] : b[i]);
    return a;
}

inline bool exact() {
#ifdef AIE_HOST_DEBUG
    return host::core.exact;
#else
    return false;
#endif
}

}  // namespace aie::detail
