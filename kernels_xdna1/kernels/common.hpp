// Shapes, header words and the helpers that every kernel needs.
//
// A block is 64 x 64. In the order of the matrix unit it is a grid of tiles, each contiguous:
//   A order  tiles 4 rows x 8 columns, [16][8][4][8]     activations
//   B order  tiles 8 k x 4 n,          [8][16][8][4]     weights, keys (k: head dimension), values (k: key)
//   sums     tiles 4 x 4, fp32,        [16][16][4][4]
// A core has 16 KB of program memory: what two kernels share is a function. How loops are written follows what was traced on
// this core (mlir-aie, skills/aie-kernel-opt-static): trips are promised, pointers restricted, and where results go back to
// where operands came from, the next trip's operands are read before this one's results are written.
//
// TRIP names a loop for the model of its time (kernels_xdna1/loops.py) and is the first thing in its body; INSIDE names a
// function that is not inlined; SEPARATE says which part of an operand has a restricted pointer of its own.
#pragma once

#include <aie_api/aie.hpp>
#include <bit>
#include <cstdint>
#include <tuple>

#ifdef KERNELS_FOR_CORE
#define PRAGMA(words) _Pragma(#words)  // takes one string: no concatenation
#define AT_LEAST(trips) PRAGMA(clang loop min_iteration_count(trips))
#define SHARED __attribute__((noinline)) static
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#define TRIP(loop)
#define INSIDE(function)
#define SEPARATE(pointer, bytes)
#else
#define AT_LEAST(trips)
#define SHARED static inline
#define UNROLL
#define ROLLED
#define TRIP(loop) const aie::host::trip this_trip(loop)
#define INSIDE(function) const aie::host::inside this_call(function)
#define SEPARATE(pointer, bytes) aie::host::separate(pointer, bytes)
#endif

constexpr int block_elements = 64 * 64;
constexpr int a_tile = 32, b_tile = 32, sum_tile = 16;                    // elements
constexpr int row_tiles = 16, a_columns = 8, sum_columns = 16;            // tiles of a block
constexpr int a_row = a_columns * a_tile, sum_row = sum_columns * sum_tile;  // elements of a row of tiles

// Words of the header; what they mean is written in contract.py.
namespace word {
enum { op, outer, inner, extra, per_output, kind, first_row, end_row, groups, valid, scale_hi, scale_lo, width, inverse_width };
enum { eps = scale_hi };
enum { count = 32, panel_order = 32, panel_gelu };  // from 32: state of the core
}  // namespace word
enum { order_a, order_k, order_v };
enum { kind_layer_norm, kind_softmax, kind_gelu, kind_add };

// GELU is part of gemm_finish, which writes elsewhere than it reads; but before a residual, or where the output has
// another order, gemm_params does it in the sums.
inline bool finish_activates(const int32_t *hdr) {
    return hdr[word::panel_gelu] != 0 && hdr[word::extra] == 0 && hdr[word::panel_order] == order_a;
}

// Words of a panel's parameter block, as int32 after 64 fp32 of bias.
enum { params_order = 64, params_gelu };

// Work comes in 16 lanes (a register of fp32, a 4x4 tile) or in 32, where constants are worth sharing.
template <unsigned N> using bf16s = aie::vector<bfloat16, N>;
template <unsigned N> using floats = aie::vector<float, N>;
template <unsigned N> using ints = aie::vector<int32_t, N>;
template <unsigned N> using sums = aie::accum<accfloat, N>;
using v16 = bf16s<16>;
using v32 = bf16s<32>;
using i16 = ints<16>;
using sum16 = sums<16>;

template <unsigned N = 16> inline floats<N> lanes(float x) { return aie::broadcast<float, N>(x); }
template <unsigned N = 16> inline ints<N> lanes(int32_t x) { return aie::broadcast<int32_t, N>(x); }
template <unsigned N = 16> inline bf16s<N> small(float x) { return aie::broadcast<bfloat16, N>(bfloat16(x)); }
template <unsigned N> inline ints<N> bits(const sums<N> &x) { return x.template to_vector<float>().template cast_to<int32_t>(); }
template <unsigned N> inline sums<N> from_bits(const ints<N> &x) { return sums<N>(x.template cast_to<float>()); }
template <unsigned N = 16> inline sums<N> load_sums(const float *p) { return sums<N>(aie::load_v<N>(p)); }
template <unsigned N> inline void store_sums(float *p, const sums<N> &x) { aie::store_v(p, x.template to_vector<float>()); }

// Elementwise products use half of the multiplier; these use all of it: lane i takes lanes i and i + 16 of a and b (the
// compiler's own headers fill only the lower half for plain products). The core adds both and c at once; the CPU build
// adds one after another, so the last bit of fp32 may differ.
inline sum16 mul_pairs(const v32 &a, const v32 &b) { return sum16(::mul_elem_16_2(a.to_native(), b.to_native())); }
inline sum16 mac_pairs(const sum16 &c, const v32 &a, const v32 &b) {
    return sum16(::mac_elem_16_2(a.to_native(), b.to_native(), c.to_native()));
}

// A constant in every lane, in the core's data memory: a load instead of the broadcast that the move slot would do.
// `contract.CONSTANT_BYTES` reserves the room for all of them.
struct table_word {
    alignas(64) int32_t lane[16] = {};
    constexpr table_word(int32_t x) {
        for (int32_t &l : lane) l = x;
    }
    constexpr table_word(float x) : table_word(std::bit_cast<int32_t>(x)) {}
    static constexpr table_word bf16_pair(float x) {  // the upper halves of exact bf16 numbers
        const int32_t word = std::bit_cast<int32_t>(x);
        return table_word(int32_t(word | (word >> 16 & 0xffff)));
    }
    static constexpr table_word halves(int32_t low, int32_t high) {
        table_word both(high);
        for (int i = 0; i < 8; ++i) both.lane[i] = low;
        return both;
    }
    static constexpr table_word bf16_halves(float low, float high) {  // sixteen lanes of each
        return halves(bf16_pair(low).lane[0], bf16_pair(high).lane[0]);
    }
    i16 load() const { return aie::load_v<16>(lane); }
    v32 load_bf16() const { return load().cast_to<bfloat16>(); }
    sum16 load_sums() const { return from_bits(load()); }
};

// The core truncates from power-up on, and any kernel may have run before.
inline void round_to_nearest_even() { aie::set_rounding(aie::rounding_mode::conv_even); }

// Two neighbouring 4x4 tiles, rounded, as one 4x8 tile of A order.
inline v32 a_order(const v16 &left, const v16 &right) {
    const auto [top, bottom] = aie::interleave_zip(left, right, 4);
    return aie::concat(top, bottom);
}
