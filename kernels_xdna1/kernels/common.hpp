// Shapes, header words and the helpers that every kernel needs.
//
// A block is 64 x 64. In the order of the matrix unit it is a grid of tiles, each contiguous:
//   A order  tiles 4 rows x 8 columns, [16][8][4][8]     activations
//   B order  tiles 8 k x 4 n,          [8][16][8][4]     weights, keys (k: head dimension), values (k: key)
//   sums     tiles 4 x 4, fp32,        [16][16][4][4]
// A core has 16 KB of program memory: what two kernels share is a function, and no loop is unrolled by hand beyond
// the sixteen accumulators of the product.
#pragma once

#include <aie_api/aie.hpp>
#include <bit>
#include <cstdint>

#ifdef KERNELS_FOR_CORE
#define AT_LEAST(trips) _Pragma("clang loop min_iteration_count(" #trips ")")
#define SHARED __attribute__((noinline)) static
#else
#define AT_LEAST(trips)
#define SHARED static inline
#endif

constexpr int block_elements = 64 * 64;
constexpr int a_tile = 32, b_tile = 32, sum_tile = 16;                    // elements
constexpr int row_tiles = 16, a_columns = 8, sum_columns = 16;            // tiles of a block
constexpr int a_row = a_columns * a_tile, sum_row = sum_columns * sum_tile;  // elements of a row of tiles

// Words of the header; what they mean is written in description.py.
namespace word {
enum { op, outer, inner, extra, per_output, kind, first_row, end_row, groups, valid, scale_hi, scale_lo, width, inverse_width };
enum { eps = scale_hi };
enum { count = 32, panel_order = 32, panel_gelu };  // from 32: state of the core
}  // namespace word
enum { order_a, order_k, order_v };
enum { kind_layer_norm, kind_softmax, kind_gelu, kind_add };

// Words of a panel's parameter block, as int32 after 64 fp32 of bias.
enum { params_order = 64, params_gelu };

using v16 = aie::vector<bfloat16, 16>;
using v32 = aie::vector<bfloat16, 32>;
using f16 = aie::vector<float, 16>;
using i16 = aie::vector<int32_t, 16>;
using sum16 = aie::accum<accfloat, 16>;

inline f16 lanes(float x) { return aie::broadcast<float, 16>(x); }
inline i16 lanes(int32_t x) { return aie::broadcast<int32_t, 16>(x); }
inline v16 small(float x) { return aie::broadcast<bfloat16, 16>(bfloat16(x)); }
inline i16 bits(const sum16 &x) { return x.to_vector<float>().cast_to<int32_t>(); }
inline sum16 from_bits(const i16 &x) { return sum16(x.cast_to<float>()); }
inline sum16 load_sums(const float *p) { return sum16(aie::load_v<16>(p)); }
inline void store_sums(float *p, const sum16 &x) { aie::store_v(p, x.to_vector<float>()); }

// The core truncates from power-up on, and any kernel may have run before.
inline void round_to_nearest_even() { aie::set_rounding(aie::rounding_mode::conv_even); }

// Two neighbouring 4x4 tiles, rounded, as one 4x8 tile of A order.
inline v32 a_order(const v16 &left, const v16 &right) {
    const auto [top, bottom] = aie::interleave_zip(left, right, 4);
    return aie::concat(top, bottom);
}
