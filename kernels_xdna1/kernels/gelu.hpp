// GELU, the erf form: max(x, 0) + q(|x|) with q in three pieces, each in a coordinate that is small where q must be exact.
//
//   |x| < 1         q = -|x|/2 + z s(z), z = x^2: the result is x/2 plus an even function that vanishes at 0
//   |x| < 2.25      q = base + u s(u), u = |x| - 1.625
//   |x| < 4.25      q = base + u s(u), u = |x| - 3.25; beyond, |x| counts as 4.25, where the piece is zero
//
// The last two products are made of two bf16 parts on each side, the steps before of one: the error of the fp32 result stays
// within half a bf16 ulp of max(|y|, 1/64).
#pragma once

#include "arithmetic.hpp"

SHARED sum16 gelu(const sum16 &x) {
    const auto edge = [](float e) { return lanes(std::bit_cast<int32_t>(e)); };
    const i16 word = bits(x);
    const i16 magnitude = aie::min(aie::bit_and(word, lanes(0x7fffffff)), edge(gelu_edge2));
    const auto first = aie::lt(magnitude, edge(gelu_edge0)), second = aie::lt(magnitude, edge(gelu_edge1));
    const auto piece = [&](float c0, float c1, float c2) {
        return aie::select(aie::select(lanes(c2), lanes(c1), second), lanes(c0), first);
    };

    // Negative numbers count as zero; -inf gives NaN as 0 * inf does, and a NaN of either sign stays one.
    const i16 clipped = aie::select(word, lanes(0), aie::lt(word, lanes(int32_t(0xff800000))));
    const i16 positive = aie::select(clipped, lanes(0x7fc00000), aie::lt(clipped, lanes(0)));

    const sum16 distance = from_bits(magnitude);
    const split a = parts(distance);
    const v16 half = sum16(aie::select(lanes(0.0f), lanes(-0.5f), first)).to_vector<bfloat16>();
    const sum16 base = aie::add(from_bits(positive), sum16(piece(0, gelu1_base, gelu2_base)));
    const sum16 offset = aie::mac(aie::mac(base, a.lo, half), a.hi, half);

    const sum16 square = aie::mac(aie::mac(aie::mul(a.hi, a.lo), a.hi, a.lo), a.hi, a.hi);
    const sum16 centred = aie::sub(distance, sum16(aie::select(lanes(gelu_centre2), lanes(gelu_centre1), second)));
    const split v = parts(sum16(aie::select(centred.to_vector<float>(), square.to_vector<float>(), first)));

    const v16 s3 = sum16(piece(gelu0_s3, gelu1_s3, gelu2_s3)).to_vector<bfloat16>();
    const v16 s2 = aie::mac(sum16(piece(gelu0_s2, gelu1_s2, gelu2_s2)), v.hi, s3).to_vector<bfloat16>();
    const split s1 = parts(aie::mac(sum16(piece(gelu0_s1, gelu1_s1, gelu2_s1)), v.hi, s2));
    const split s0 = parts(plus_product(sum16(piece(gelu0_s0, gelu1_s0, gelu2_s0)), v, s1));
    return plus_product(offset, v, s0);
}
