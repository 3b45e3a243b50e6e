// fp32 arithmetic on a core that multiplies bf16 only, and the functions that it has not: powers of two, 1/x, 1/sqrt(x).
#pragma once

#include "coefficients.hpp"
#include "common.hpp"

// An fp32 value as the sum of two bf16: 16 bits of mantissa. An infinity becomes (inf, nan).
template <unsigned N = 16> struct split {
    bf16s<N> hi, lo;
};

template <unsigned N> inline split<N> parts(const sums<N> &x, const bf16s<N> &one) {
    const bf16s<N> hi = x.template to_vector<bfloat16>();
    return {hi, aie::msc(x, hi, one).template to_vector<bfloat16>()};
}
template <unsigned N> inline split<N> parts(const sums<N> &x) { return parts(x, small<N>(1)); }

template <unsigned N> inline sums<N> plus_product(const sums<N> &c, const split<N> &a, const split<N> &b) {
    return aie::mac(aie::mac(aie::mac(c, a.hi, b.lo), a.lo, b.hi), a.hi, b.hi);
}
inline sum16 plus_product(const sum16 &c, const split<> &a, const split<> &b) {
    return aie::mac(mac_pairs(c, aie::concat(a.hi, a.lo), aie::concat(b.lo, b.hi)), a.hi, b.hi);
}
inline sum16 product(const split<> &a, const split<> &b) {
    return aie::mac(mul_pairs(aie::concat(a.hi, a.lo), aie::concat(b.lo, b.hi)), a.hi, b.hi);
}
inline sum16 product(const split<> &a, const v16 &b) { return mul_pairs(aie::concat(a.lo, a.hi), aie::concat(b, b)); }

// ---- integers in floats: adding 1.5 * 2^23 leaves no fraction bits, 1.5 * 2^16 leaves seven, as many as bf16 has ----

inline sum16 nearest_integer(const sum16 &t) {
    const sum16 magic(lanes(12582912.0f));
    return aie::sub(aie::add(t, magic), magic);
}

// The larger of floats: as integers, positive floats have the right order and negative ones the reverse, so both
// extremes are kept and the choice is made at the end. No order is promised for NaN.
struct extremes {
    i16 most, least;
    void include(const i16 &x) { most = aie::max(most, x), least = aie::min(least, x); }
    i16 maximum() const { return aie::select(most, least, aie::lt(most, lanes(0))); }
};

// 2^floor(w) * (1 + w - floor(w)) in bf16, zero below the normal range: with seven fraction bits and the bias added, the
// low half of the fp32 word is the bf16 number. So w = n + (2^f - 1) gives 2^(n + f), and an integer w gives 2^w. w <= 127.
inline v16 power(const sum16 &w) {
    const float zero = 98304.0f;
    const i16 word = aie::max(bits(aie::add(w, sum16(lanes(zero + 127)))), lanes(std::bit_cast<int32_t>(zero)));
    return aie::filter_even(word.cast_to<int16_t>()).cast_to<bfloat16>();
}

// 2^(f + 1/2) for |f| <= 1/2, between 1 and 2, without the constant term exp2_s0: 5e-5 at most. `hi` is f in bf16, and NaN
// where f is infinite or NaN. The half turns the nearest integer into the floor that `power` works with.
inline sum16 exp2_varying(const sum16 &start, const sum16 &f, v16 &hi) {
    const split<> x = parts(f);
    hi = x.hi;
    const v16 s3 = aie::mac(sum16(lanes(exp2_s3)), hi, small(exp2_s4)).to_vector<bfloat16>();
    const v16 s2 = aie::mac(sum16(lanes(exp2_s2)), hi, s3).to_vector<bfloat16>();
    return plus_product(start, x, parts(aie::mac(sum16(lanes(exp2_s1)), hi, s2)));
}

// ---- Newton's iterations from an integer guess; y is rounded to bf16 each time, its correction is exact enough ----

SHARED sum16 reciprocal(sum16 x) {
    INSIDE("reciprocal");
    const split<> d = parts(x);
    sum16 y = from_bits(aie::sub(lanes(0x7ef311c3), bits(x)));
    ROLLED
    for (int i = 0; i < 3; ++i) {
        TRIP("Newton");
        const v16 hi = y.to_vector<bfloat16>();
        const sum16 e = aie::msc(aie::msc(sum16(lanes(1.0f)), d.hi, hi), d.lo, hi);  // 1 - x y
        y = plus_product(sum16(hi), split<>{hi, small(0)}, parts(e));
    }
    return y;
}

SHARED sum16 inverse_root(sum16 x) {
    INSIDE("inverse root");
    const split<> d = parts(x);
    sum16 y = from_bits(aie::sub(lanes(0x5f3759df), aie::logical_downshift(bits(x), 1)));
    ROLLED
    for (int i = 0; i < 3; ++i) {
        TRIP("Newton");
        const v16 hi = y.to_vector<bfloat16>();
        const sum16 e = aie::sub(sum16(lanes(1.0f)), product(d, parts(aie::mul(hi, hi))));  // 1 - x y^2
        const v16 half = aie::mul(hi, small(0.5f)).to_vector<bfloat16>();
        const sum16 first = plus_product(sum16(hi), split<>{half, small(0)}, parts(e));
        const v16 e1 = e.to_vector<bfloat16>();
        const v16 e2 = aie::mul(e1, e1).to_vector<bfloat16>();
        y = aie::mac(first, aie::mul(half, small(0.75f)).to_vector<bfloat16>(), e2);  // y (1 + e/2 + 3/8 e^2)
    }
    return y;
}

// ---- reductions over the columns of a row-major [rows][16 / rows] vector; every lane gets its row's result ----

template <int rows> SHARED sum16 row_sums(const sum16 &x) {
    sum16 t(aie::transpose(x.to_vector<float>(), rows, 16 / rows));
    for (int n = 8; n >= rows; n /= 2) t = aie::add(t, sum16(aie::shuffle_down_rotate(t.to_vector<float>(), n)));
    return sum16(aie::transpose(t.to_vector<float>(), 16 / rows, rows));
}

template <int rows> SHARED i16 row_maxima(const extremes &x) {
    extremes t{aie::transpose(x.most, rows, 16 / rows), aie::transpose(x.least, rows, 16 / rows)};
    for (int n = 8; n >= rows; n /= 2) {
        t.most = aie::max(t.most, aie::shuffle_down_rotate(t.most, n));
        t.least = aie::min(t.least, aie::shuffle_down_rotate(t.least, n));
    }
    return aie::transpose(t.maximum(), 16 / rows, rows);
}
