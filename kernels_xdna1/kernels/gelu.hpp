// GELU, the erf form: max(x, 0) + q(|x|), q = -|x| Phi(-|x|) in three polynomials of v = |x| - centre:
//
//   |x| < 1         centre 0: relatively exact near zero
//   |x| < 2.25      centre 1.625
//   |x| < 4.25      centre 3.25; beyond, |x| counts as 4.25, where q is zero
//
// q = base + v (s0 + v (s1 + ...)): the two outer products are made of two bf16 parts on each side, the inner steps of one.
// The error of the fp32 result stays within half a bf16 ulp of max(|y|, 1/64).
//
// The move slot, which selects the coefficients, is the bottleneck: so constants come from a table instead of being
// broadcast, two vectors share them, and what fits into bf16 is selected there, 32 lanes at a time.
#pragma once

#include "arithmetic.hpp"

namespace gelu_table {
constexpr table_word magnitude = 0x7fffffff, one = table_word::bf16_pair(1);
constexpr table_word edge[3] = {gelu0_edge, gelu1_edge, gelu2_edge};
constexpr table_word centre[3] = {gelu0_centre, gelu1_centre, gelu2_centre};
constexpr table_word base[3] = {gelu0_base, gelu1_base, gelu2_base};
constexpr table_word s0[3] = {gelu0_s0, gelu1_s0, gelu2_s0};
constexpr table_word s1[3] = {gelu0_s1, gelu1_s1, gelu2_s1};
constexpr table_word s2[3] = {gelu0_s2, gelu1_s2, gelu2_s2};
constexpr table_word s3[3] = {gelu0_s3, gelu1_s3, gelu2_s3};
constexpr table_word s4[3] = {table_word::bf16_pair(gelu0_s4), table_word::bf16_pair(gelu1_s4), table_word::bf16_pair(gelu2_s4)};
}  // namespace gelu_table

SHARED sums<32> gelu(const sums<32> &x) {
    using namespace gelu_table;
    const ints<32> word = bits(x), zero = lanes<32>(0);
    const ints<32> clipped = aie::min(aie::bit_and(word, magnitude.load_twice()), edge[2].load_twice());
    const auto first = aie::lt(clipped, edge[0].load_twice()), second = aie::lt(clipped, edge[1].load_twice());
    const auto piece = [&](const table_word (&c)[3]) {
        const ints<32> outer = aie::select(c[2].load_twice(), c[1].load_twice(), second);
        return from_bits(aie::select(outer, c[0].load_twice(), first));
    };

    const v32 unit = one.load_bf16();
    const split<32> v = parts(aie::sub(from_bits(clipped), piece(centre)), unit);
    const v32 t4 = aie::select(aie::select(s4[2].load_bf16(), s4[1].load_bf16(), second), s4[0].load_bf16(), first);
    const v32 t3 = aie::mac(piece(s3), v.hi, t4).to_vector<bfloat16>();
    const v32 t2 = aie::mac(piece(s2), v.hi, t3).to_vector<bfloat16>();
    const split<32> t1 = parts(aie::mac(piece(s1), v.hi, t2), unit);
    const split<32> t0 = parts(plus_product(piece(s0), v, t1), unit);

    // As integers, positive floats (and NaN) are above zero, negative ones below. What is below must vanish but for
    // -inf and NaN, which times zero are NaN, as in -inf * Phi(-inf).
    const auto zeros = zero.extract<16>(0).cast_to<int16_t>();
    const v32 negative = aie::min(x.to_vector<bfloat16>().cast_to<int16_t>(), zeros).cast_to<bfloat16>();
    const sums<32> positive = aie::mac(from_bits(aie::max(word, zero)), negative, zeros.cast_to<bfloat16>());
    return plus_product(aie::add(positive, piece(base)), v, t0);
}
