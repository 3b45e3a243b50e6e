// GELU, the erf form: max(x, 0) + q(|x|), q = -|x| Phi(-|x|) in three polynomials of v = |x| - centre:
//
//   |x| < 1         centre 0: relatively exact near zero
//   |x| < 2.25      centre 1.625
//   |x| < 4.25      centre 3.25; beyond, |x| counts as 4.25, where q is as good as zero
//
// q = base + v (s0 + v (s1 + ...)): the two outer products are made of two bf16 parts on each side, the inner steps of one.
// The fp32 result is off by at most 0.63 bf16 ulps of max(|y|, 1/64), the rounded one by at most 0.9.
//
// Selections would take the move slot, which is the scarcest: so a coefficient is the first piece's plus products with
// `piece`, whose halves are one where the second and the third piece begin.
#pragma once

#include "arithmetic.hpp"

namespace gelu_table {
constexpr table_word magnitude = 0x7fffffff, end = gelu_edge2;
constexpr table_word edges[2] = {std::bit_cast<int32_t>(gelu_edge0) - 1, std::bit_cast<int32_t>(gelu_edge1) - 1};
constexpr table_word one = table_word::bf16_pair(1), zero = table_word::bf16_pair(0), s4 = table_word::bf16_pair(gelu_s4);
constexpr table_word s0 = gelu_s0, s1 = gelu_s1, s2 = gelu_s2, s3 = gelu_s3;
constexpr table_word centre = table_word::bf16_halves(-gelu_centre_high0, -gelu_centre_high1);
constexpr table_word base_high = table_word::bf16_halves(gelu_base_high0, gelu_base_high1);
constexpr table_word base_low = table_word::bf16_halves(gelu_base_low0, gelu_base_low1);
constexpr table_word s0_high = table_word::bf16_halves(gelu_s0_high0, gelu_s0_high1);
constexpr table_word s0_low = table_word::bf16_halves(gelu_s0_low0, gelu_s0_low1);
constexpr table_word s1_high = table_word::bf16_halves(gelu_s1_high0, gelu_s1_high1);
constexpr table_word s1_low = table_word::bf16_halves(gelu_s1_low0, gelu_s1_low1);
constexpr table_word s2_high = table_word::bf16_halves(gelu_s2_high0, gelu_s2_high1);
constexpr table_word s3_high = table_word::bf16_halves(gelu_s3_high0, gelu_s3_high1);
}  // namespace gelu_table

// Of the floats whose bits `word` holds.
inline sum16 gelu(const i16 &word) {
    using namespace gelu_table;
    const i16 clipped = aie::min(aie::bit_and(word, magnitude.load()), end.load());
    const auto past = aie::lt(aie::concat(edges[0].load(), edges[1].load()), aie::concat(clipped, clipped));
    const v32 none = zero.load_bf16(), unit = one.load_bf16(), piece = aie::select(none, unit, past);

    const split<> v = parts(mac_pairs(from_bits(clipped), piece, centre.load_bf16()), unit.extract<16>(0));
    const v16 top = s4.load_bf16().extract<16>(0);
    const v16 t3 = aie::mac(mac_pairs(s3.load_sums(), piece, s3_high.load_bf16()), v.hi, top).to_vector<bfloat16>();
    const v16 t2 = aie::mac(mac_pairs(s2.load_sums(), piece, s2_high.load_bf16()), v.hi, t3).to_vector<bfloat16>();
    const sum16 s1_here = mac_pairs(mac_pairs(s1.load_sums(), piece, s1_high.load_bf16()), piece, s1_low.load_bf16());
    const split<> t1 = parts(aie::mac(s1_here, v.hi, t2), unit.extract<16>(0));
    const sum16 s0_here = mac_pairs(mac_pairs(s0.load_sums(), piece, s0_high.load_bf16()), piece, s0_low.load_bf16());
    const split<> t0 = parts(plus_product(s0_here, v, t1), unit.extract<16>(0));

    // As integers, positive floats (and NaN) are above zero, negative ones below. What is below must vanish but for
    // -inf and NaN, which times zero are NaN, as in -inf * Phi(-inf).
    const i16 nothing = none.cast_to<int32_t>();
    const v16 upper = aie::filter_odd(word.cast_to<int16_t>()).cast_to<bfloat16>();
    const v16 negative = aie::min(upper.cast_to<int16_t>(), none.extract<16>(0).cast_to<int16_t>()).cast_to<bfloat16>();
    const sum16 positive = from_bits(aie::max(word, nothing));
    const sum16 base = mac_pairs(mac_pairs(positive, piece, base_high.load_bf16()), piece, base_low.load_bf16());
    const sum16 cross = mac_pairs(base, aie::concat(v.hi, v.lo), aie::concat(t0.lo, t0.hi));
    return mac_pairs(cross, aie::concat(v.hi, negative), aie::concat(t0.hi, none.extract<16>(0)));
}

// From sums to a block in A order, 16 results at a time: two rows of eight columns, which lie in two tiles of the sums. (One
// tile at a time would need no mending of the order, but two tiles for one store.)
SHARED void activate(const float *__restrict sums, bfloat16 *__restrict y, unsigned vectors) {
    INSIDE("activate");
    const auto *words = reinterpret_cast<const int32_t *>(sums);
    AT_LEAST(32)
    for (unsigned v = 0; v < vectors; ++v) {
        TRIP("gelu");
        const int32_t *at = words + v / 2 * a_tile + v % 2 * 8;
        const v16 out = gelu(aie::concat(aie::load_v<8>(at), aie::load_v<8>(at + sum_tile))).to_vector<bfloat16>();
        aie::store_v(y + v * 16, aie::interleave_zip(out, aie::shuffle_down_rotate(out, 8), 4).first);
    }
}
