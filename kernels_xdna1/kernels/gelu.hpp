// GELU, the erf form: max(x, 0) + q(|x|), q = -|x| Phi(-|x|) in three polynomials of v = |x| - centre:
//
//   |x| < 1         centre 0: relatively exact near zero
//   |x| < 2.25      centre 1.625
//   |x| < 4.25      centre 3.25; beyond, |x| counts as 4.25, where q is zero
//
// q = base + v (s0 + v (s1 + ...)): the two outer products are made of two bf16 parts on each side, the inner steps of one.
// The error of the fp32 result stays within half a bf16 ulp of max(|y|, 1/64). Two vectors at a time share the constants:
// the move slot, which holds broadcasts and selections, is the bottleneck.
#pragma once

#include "arithmetic.hpp"

SHARED sums<32> gelu(const sums<32> &x) {
    const auto edge = [](float e) { return lanes<32>(std::bit_cast<int32_t>(e)); };
    const ints<32> word = bits(x), zero = lanes<32>(0);
    const ints<32> magnitude = aie::min(aie::bit_and(word, lanes<32>(0x7fffffff)), edge(gelu2_edge));
    const auto first = aie::lt(magnitude, edge(gelu0_edge)), second = aie::lt(magnitude, edge(gelu1_edge));
    const auto piece = [&](float c0, float c1, float c2) {
        return sums<32>(aie::select(aie::select(lanes<32>(c2), lanes<32>(c1), second), lanes<32>(c0), first));
    };

    const split<32> v = parts(aie::sub(from_bits(magnitude), piece(gelu0_centre, gelu1_centre, gelu2_centre)));
    const v32 s4 = piece(gelu0_s4, gelu1_s4, gelu2_s4).to_vector<bfloat16>();
    const v32 s3 = aie::mac(piece(gelu0_s3, gelu1_s3, gelu2_s3), v.hi, s4).to_vector<bfloat16>();
    const v32 s2 = aie::mac(piece(gelu0_s2, gelu1_s2, gelu2_s2), v.hi, s3).to_vector<bfloat16>();
    const split<32> s1 = parts(aie::mac(piece(gelu0_s1, gelu1_s1, gelu2_s1), v.hi, s2));
    const split<32> s0 = parts(plus_product(piece(gelu0_s0, gelu1_s0, gelu2_s0), v, s1));

    // As integers, positive floats (and NaN) are above zero, negative ones below. What is below must vanish but for
    // -inf and NaN, which times zero are NaN, as in -inf * Phi(-inf).
    const v32 negative = from_bits(aie::min(word, zero)).to_vector<bfloat16>();
    const sums<32> positive = aie::mac(from_bits(aie::max(word, zero)), negative, small<32>(0));
    return plus_product(aie::add(positive, piece(gelu0_base, gelu1_base, gelu2_base)), v, s0);
}
