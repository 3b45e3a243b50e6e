// The pass over a row that comes before its results: moments for layer_norm, maximum and sum of exponentials for softmax.
//
// layer_norm: the deviations d from a pivot near the mean (of the row's first 64 columns, rounded to bf16) are exact in
// fp32, and so well conditioned however large the mean is; columns past the row's width do not count. softmax: each lane keeps its own maximum (an integer) and sum;
// they meet in the last block.
// An overlay that holds no other row operation leaves them out (ONLY_LAYER_NORM).
#include "rows.hpp"

namespace {

SHARED void moments(const bfloat16 *x, const row_state &state, bool first, int valid) {
    for (int h = 0; h < halves; ++h) {
        if (first) {
            sum16 total(aie::zeros<float, 16>());
            for (int t = 0; t < a_columns; ++t) total = aie::mac(total, aie::load_v<16>(x + half_at(h, t)), small(1));
            store_sums(state.first(h), aie::mul(row_sums<2>(total).to_vector<bfloat16>(), small(1.0f / 64)));
            store_sums(state.second(h), sum16(aie::zeros<float, 16>()));
            store_sums(state.third(h), sum16(aie::zeros<float, 16>()));
        }
        const sum16 pivot = load_sums(state.first(h));
        sum16 sum = load_sums(state.second(h)), squares = load_sums(state.third(h));
        AT_LEAST(8)
        for (int t = 0; t < a_columns; ++t) {
            sum16 d = aie::sub(sum16(aie::load_v<16>(x + half_at(h, t))), pivot);
            if (valid < 64) d = sum16(aie::select(d.to_vector<float>(), lanes(0.0f), past_the_end(valid - 8 * t)));
            sum = aie::add(sum, d);
            const split<> p = parts(d);
            squares = plus_product(squares, p, p);
        }
        store_sums(state.second(h), sum);
        store_sums(state.third(h), squares);
    }
}

// (mean, 1 / sqrt(variance + eps)) take the place of the sums.
SHARED void finish_moments(const row_state &state, const int32_t *hdr) {
    const split<> inverse_width = parts(from_bits(lanes(hdr[word::inverse_width])));
    for (int h = 0; h < halves; ++h) {
        const sum16 shift = product(parts(row_sums<2>(load_sums(state.second(h)))), inverse_width);
        const sum16 square = product(parts(row_sums<2>(load_sums(state.third(h)))), inverse_width);
        const split<> s = parts(shift);
        const sum16 variance = from_bits(aie::max(bits(aie::sub(square, product(s, s))), lanes(0)));
        store_sums(state.second(h), inverse_root(aie::add(variance, from_bits(lanes(hdr[word::eps])))));
        store_sums(state.first(h), aie::add(load_sums(state.first(h)), shift));
    }
}

#ifndef ONLY_LAYER_NORM
SHARED void exponentials(const bfloat16 *x, const row_state &state, bool first, int valid) {
    for (int h = 0; h < halves; ++h) {
        if (first) {
            store_sums(state.first(h), sum16(lanes(exponent::never)));
            store_sums(state.second(h), sum16(aie::zeros<float, 16>()));
        }
        const sum16 before = load_sums(state.first(h));
        extremes found{bits(before), bits(before)};
        for (int t = 0; t < a_columns; ++t) found.include(bits(exponent(aie::load_v<16>(x + half_at(h, t)), valid - 8 * t).n));
        const sum16 maximum = from_bits(found.maximum());
        sum16 sum = product(parts(load_sums(state.second(h))), power(aie::sub(before, maximum)));
        for (int t = 0; t < a_columns; ++t) {
            const exponent e(aie::load_v<16>(x + half_at(h, t)), valid - 8 * t);
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
    for (int h = 0; h < halves; ++h) {
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
    moments(x, state, k == 0, hdr[word::width] - 64 * k);
    if (last) finish_moments(state, hdr);
}
