// The matrix unit: 4x8 by 8x4 in bf16, sums in fp32. Included by aie.hpp.
#pragma once

namespace aie {

namespace detail {

// One output of the unit, as captured on a Phoenix NPU (tests/kernels/data/mmul_4x8x4_bf16.json): denormal inputs are
// zeros; the products are aligned to the largest exponent among them, on a grid whose last bit is 2^-23 of that
// exponent's unit, each rounded to nearest even; their sum is exact and is rounded once, to nearest even, to fp32.
// Results below the normal range become zero. That the accumulator takes part as one more addend of the same 23-bit
// grid is not in these captures, which all start from zero: it is what FIM43-Redeye/xdna-emu states of this core
// (vector_float.rs, which that project reports as bit-exact on its sweeps of special values).
inline float exact_dot(const uint16_t *a, unsigned stride_a, const uint16_t *b, unsigned stride_b, float c) {
    constexpr int grid = 23;          // fraction bits below the unit of the largest exponent
    int64_t mantissa[9];
    int exponent[9], terms = 0, top = -100000;
    auto term = [&](int64_t m, int e) {
        mantissa[terms] = m, exponent[terms++] = e;
        if (e > top) top = e;
    };
    float special = 0;                // infinities and NaN follow IEEE rules
    bool is_special = false;
    for (int k = 0; k < 8; ++k) {
        const uint16_t x = a[k * stride_a], y = b[k * stride_b];
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
    const uint32_t cb = std::bit_cast<uint32_t>(c);
    const int ec = int(cb >> 23 & 255);
    if (ec == 255) special += c, is_special = true;
    else if (ec) term((cb >> 31 ? -1 : 1) * int64_t((cb & 0x7fffff) | 0x800000), ec - 127);
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
    int e = top - grid + 150;         // biased exponent if the leading bit is bit 23
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

}  // namespace detail

template <unsigned M, unsigned K, unsigned N, class A, class B, class Acc = accauto> class mmul;

template <> class mmul<4, 8, 4, bfloat16, bfloat16, accauto> {
    accum<accfloat, 16> c;

public:
    static constexpr unsigned size_A = 32, size_B = 32, size_C = 16;

    AIE_INLINE mmul() : c(detail::raw_t<float, 16>{}) {}
    AIE_INLINE mmul(const accum<accfloat, 16> &acc) : c(acc) {}
    AIE_INLINE accum<accfloat, 16> to_accum() const { return c; }

    AIE_INLINE void mac(const vector<bfloat16, 32> &a, const vector<bfloat16, 32> &b) {
        host::spend(host::multiply);
#ifdef AIE_HOST_DEBUG
        if (host::core.exact) {
            uint16_t x[32], y[32];
            __builtin_memcpy(x, &a.v, 64);
            __builtin_memcpy(y, &b.v, 64);
            for (unsigned i = 0; i < 16; ++i) c.v[i] = detail::exact_dot(x + i / 4 * 8, 1, y + i % 4, 4, c.v[i]);
            return;
        }
#endif
        // Products of bf16 are exact in fp32, so a fused multiply-add rounds exactly where the adder does.
        const auto low = detail::widen<16>(a.template extract<16>(0).v), high = detail::widen<16>(a.template extract<16>(1).v);
        const auto top = detail::widen<16>(b.template extract<16>(0).v), bottom = detail::widen<16>(b.template extract<16>(1).v);
        step<0>(low, high, top), step<1>(low, high, top), step<2>(low, high, top), step<3>(low, high, top);
        step<4>(low, high, bottom), step<5>(low, high, bottom), step<6>(low, high, bottom), step<7>(low, high, bottom);
    }

private:
    using raw = detail::raw_t<float, 16>;
    // One of the eight k: column k of A along the rows, row k of B along the columns.
    template <int k> AIE_INLINE void step(raw low, raw high, raw half_b) {
        constexpr int r = k % 4 * 4;
        const raw column = __builtin_shufflevector(low, high, k, k, k, k, k + 8, k + 8, k + 8, k + 8, k + 16, k + 16, k + 16,
                                                   k + 16, k + 24, k + 24, k + 24, k + 24);
        const raw row = __builtin_shufflevector(half_b, half_b, r, r + 1, r + 2, r + 3, r, r + 1, r + 2, r + 3, r, r + 1, r + 2,
                                                r + 3, r, r + 1, r + 2, r + 3);
        c.v += column * row;
    }
};

}  // namespace aie
