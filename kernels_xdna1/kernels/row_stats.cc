// The pass over a row that comes before its results: moments for layer_norm, maximum and sum of exponentials for softmax.
//
// layer_norm: the deviations d from a pivot near the mean (of the row's first 64 columns, rounded to bf16) are exact in
// fp32, and so well conditioned however large the mean is; columns past the row's width do not count. softmax: each lane keeps its own maximum (an integer) and sum;
// they meet in the last block.
// An overlay that holds no other row operation leaves them out (ONLY_LAYER_NORM).
#include "rows.hpp"

namespace {

// Sums of the deviations from the pivots and of their squares; d = hi + lo, d^2 = hi^2 + 2 hi lo. Two row tiles at a time.
SHARED void moments(const bfloat16 *__restrict x, const float *__restrict pivots, float *__restrict sums, float *__restrict squares) {
    INSIDE("moments");
    const v32 one = small<32>(1);
    const auto step = aie::broadcast<int16_t, 16>(0x80);  // a bf16 number's exponent
    for (int i = 0; i < halves; i += 4) {
        TRIP("row tiles");
        sum16 s0 = load_sums(sums + 16 * i), s1 = load_sums(sums + 16 * i + 16), s2 = load_sums(sums + 16 * i + 32), s3 = load_sums(sums + 16 * i + 48);
        sum16 q0 = load_sums(squares + 16 * i), q1 = load_sums(squares + 16 * i + 16), q2 = load_sums(squares + 16 * i + 32),
              q3 = load_sums(squares + 16 * i + 48);
        const bfloat16 *at = x + i / 2 * a_row;
        const auto add = [&](const bfloat16 *p, int h, sum16 &s, sum16 &q) {
            const split<> d = parts(aie::sub(sum16(aie::load_v<16>(p)), load_sums(pivots + 16 * (i + h))));
            const v32 both = aie::concat(d.hi, d.lo);
            const v16 twice = aie::add(d.hi.cast_to<int16_t>(), step).cast_to<bfloat16>();
            s = mac_pairs(s, both, one);
            q = mac_pairs(q, both, aie::concat(d.hi, twice));
        };
        AT_LEAST(8)
        for (int t = 0; t < a_row; t += a_tile) {
            TRIP("moments");
            add(at + t, 0, s0, q0), add(at + t + 16, 1, s1, q1);
            add(at + a_row + t, 2, s2, q2), add(at + a_row + t + 16, 3, s3, q3);
        }
        store_sums(sums + 16 * i, s0), store_sums(sums + 16 * i + 16, s1), store_sums(sums + 16 * i + 32, s2), store_sums(sums + 16 * i + 48, s3);
        store_sums(squares + 16 * i, q0), store_sums(squares + 16 * i + 16, q1), store_sums(squares + 16 * i + 32, q2),
            store_sums(squares + 16 * i + 48, q3);
    }
}

// The same for a block in which the row ends: rare, so plain.
SHARED void last_moments(const bfloat16 *__restrict x, const row_state &state, int valid) {
    INSIDE("last moments");
    for (unsigned v = 0; v < my_rows / 16; ++v) {
        TRIP("last moments");
        const int h = v / 16 * 2 + v % 2;
        const sum16 difference = aie::sub(sum16(aie::load_v<16>(x + 16 * v)), load_sums(state.first(h)));
        const split<> d = parts(sum16(aie::select(difference.to_vector<float>(), lanes(0.0f), past_the_end(valid - int(v / 2 % 8) * 8))));
        store_sums(state.second(h), mac_pairs(load_sums(state.second(h)), aie::concat(d.hi, d.lo), small<32>(1)));
        store_sums(state.third(h), plus_product(load_sums(state.third(h)), d, d));
    }
}

// The pivots: means of the rows' first 64 columns, rounded to bf16. No sums yet.
SHARED void start_moments(const bfloat16 *__restrict x, const row_state &state) {
    INSIDE("start moments");
    const v16 one = small(1);
    const floats<16> zero = aie::zeros<float, 16>();
    for (int h = 0; h < halves; ++h) {
        TRIP("pairs of rows");
        const bfloat16 *at = x + h / 2 * a_row + h % 2 * 16;
        sum16 total(zero);
        UNROLL
        for (int t = 0; t < a_columns; ++t) total = aie::mac(total, aie::load_v<16>(at + t * a_tile), one);
        store_sums(state.first(h), total);
        aie::store_v(state.second(h), zero), aie::store_v(state.third(h), zero);
    }
    const sum16 pivot = aie::mul(fold_rows(state.first(0)).to_vector<bfloat16>(), small(1.0f / 64));
    store_sums(state.pivots(), pivot);
    spread_rows(state.first(0), pivot);
}

// x in three bf16 numbers: 24 bits.
struct three {
    v16 hi, mid, lo;
    explicit three(const sum16 &x) {
        const v16 one = small(1);
        hi = x.to_vector<bfloat16>();
        const sum16 rest = aie::msc(x, hi, one);
        mid = rest.to_vector<bfloat16>();
        lo = aie::msc(rest, mid, one).to_vector<bfloat16>();
    }
};

// In place of the sums: 1 / sqrt(variance + eps) as three bf16 numbers, and -mean times those.
SHARED void finish_moments(const row_state &state, const int32_t *hdr) {
    INSIDE("finish moments");
    const split<> inverse_width = parts(from_bits(lanes(hdr[word::inverse_width])));
    const sum16 shift = product(parts(fold_rows(state.second(0))), inverse_width);
    const sum16 square = product(parts(fold_rows(state.third(0))), inverse_width);
    const split<> s = parts(shift);
    const sum16 variance = from_bits(aie::max(bits(aie::sub(square, product(s, s))), lanes(0)));
    const sum16 inverse = inverse_root(aie::add(variance, from_bits(lanes(hdr[word::eps]))));
    const three m(aie::add(load_sums(state.pivots()), shift)), i(inverse);
    sum16 offset = mul_pairs(aie::concat(m.hi, m.lo), aie::concat(i.lo, i.hi));
    offset = aie::mac(offset, m.mid, i.mid);
    offset = mac_pairs(offset, aie::concat(m.hi, m.mid), aie::concat(i.mid, i.hi));
    offset = aie::mac(offset, m.hi, i.hi);
    spread_rows(state.first(0), aie::sub(sum16(aie::zeros<float, 16>()), offset));
    spread_rows(state.second(0), inverse);
    for (int h = 0; h < halves; ++h) {
        TRIP("limbs");
        const three limbs(load_sums(state.second(h)));
        aie::store_v(state.limbs(h), aie::concat(limbs.hi, limbs.mid).cast_to<float>());
        aie::store_v(state.limbs(h) + 16, limbs.lo.cast_to<float>());
    }
}

#ifndef ONLY_LAYER_NORM
SHARED void exponentials(const bfloat16 *x, const row_state &state, bool first, int valid) {
    INSIDE("exponentials");
    for (int h = 0; h < halves; ++h) {
        TRIP("pairs of rows");
        if (first) {
            store_sums(state.first(h), sum16(lanes(exponent::never)));
            store_sums(state.second(h), sum16(aie::zeros<float, 16>()));
        }
        const sum16 before = load_sums(state.first(h));
        extremes found{bits(before), bits(before)};
        for (int t = 0; t < a_columns; ++t) {
            TRIP("maximum");
            found.include(bits(exponent(aie::load_v<16>(x + h / 2 * a_row + t * a_tile + h % 2 * 16), valid - 8 * t).n));
        }
        const sum16 maximum = from_bits(found.maximum());
        sum16 sum = product(parts(load_sums(state.second(h))), power(aie::sub(before, maximum)));
        for (int t = 0; t < a_columns; ++t) {
            TRIP("sum of powers");
            const exponent e(aie::load_v<16>(x + h / 2 * a_row + t * a_tile + h % 2 * 16), valid - 8 * t);
            const split<> p = e.fraction();
            const v16 scale = power(aie::sub(e.n, maximum));
            sum = mac_pairs(sum, aie::concat(p.lo, p.hi), aie::concat(scale, scale));
        }
        store_sums(state.first(h), maximum);
        store_sums(state.second(h), sum);
    }
}

// (maximum of the row, 1 / sum) take the place of the lanes' own. A row without any finite number has no softmax: NaN.
SHARED void finish_exponentials(const row_state &state) {
    INSIDE("finish exponentials");
    for (int h = 0; h < halves; ++h) {
        TRIP("pairs of rows");
        const sum16 own = load_sums(state.first(h));
        const i16 maximum = row_maxima<2>({bits(own), bits(own)});
        const v16 scale = power(aie::sub(own, from_bits(maximum)));
        const sum16 inverse = reciprocal(row_sums<2>(product(parts(load_sums(state.second(h))), scale)));
        const auto empty = aie::eq(maximum, bits(nearest_integer(sum16(lanes(exponent::never)))));
        store_sums(state.second(h), from_bits(aie::select(bits(inverse), lanes(0x7fc00000), empty)));
        store_sums(state.first(h), from_bits(maximum));
    }
}
#endif

}  // namespace

extern "C" void row_stats(const bfloat16 *__restrict b, float *__restrict acc, int32_t *__restrict hdr, int32_t k, int32_t row) {
    round_to_nearest_even();
    const row_state state{acc};
    const bfloat16 *x = b + row * my_rows;
    const bool last = k == hdr[word::inner] - 1;
#ifndef ONLY_LAYER_NORM
    if (hdr[word::kind] != kind_layer_norm) {
        exponentials(x, state, k == 0, hdr[word::valid] - 64 * k);
        if (last) finish_exponentials(state);
        return;
    }
#endif
    if (k == 0) start_moments(x, state);
    const int valid = hdr[word::width] - 64 * k;
    if (valid < 64) last_moments(x, state, valid);
    else moments(x, state.first(0), state.second(0), state.third(0));
    if (last) finish_moments(state, hdr);
}
