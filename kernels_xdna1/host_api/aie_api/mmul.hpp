// The matrix unit: 4x8 by 8x4 in bf16, sums in fp32. Included by aie.hpp.
#pragma once

namespace aie {

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
        c = made(c, host::note(host::op_multiply, 1, id_of(c), id_of(a), id_of(b)));
        if (detail::exact()) {
            uint16_t x[32], y[32];
            __builtin_memcpy(x, &a.v, 64);
            __builtin_memcpy(y, &b.v, 64);
            for (unsigned i = 0; i < 16; ++i) c.v[i] = detail::exact_dot<8>(x + i / 4 * 8, 1, y + i % 4, 4, c.v[i]);
            return;
        }
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
