// The loops over every value that the host hands to the NPU or takes from it. `bf16.py`, `frames.py` and `blocks.py` say
// in numpy what they compute, bit for bit. fp32 values travel as their bits.

#include <algorithm>
#include <cstdint>

namespace {

// To nearest even; NaN becomes a quiet NaN.
inline std::uint16_t bf16(std::uint32_t bits) {
  const std::uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  const std::uint32_t nan = (bits >> 16 & 0x8000) | 0x7FC0;
  return static_cast<std::uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

}  // namespace

extern "C" void to_bf16(const std::uint32_t* in, std::uint16_t* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = bf16(in[i]);
}

// frames x channels, any strides (in values) -> `count` lines of `line` pieces. `lines`: the pairs (phase, group).
extern "C" void write_frames(const std::uint32_t* in, std::int64_t frame_stride, std::int64_t channel_stride,
                             std::int64_t frames, std::int64_t channels, const std::int64_t* lines, std::int64_t count,
                             std::int64_t phases, std::int64_t line, std::int64_t before, std::uint16_t* out) {
  for (std::int64_t place = 0; place < count; ++place, out += 8 * line) {
    const std::int64_t phase = lines[2 * place], first = 8 * lines[2 * place + 1];
    const std::int64_t held = std::clamp<std::int64_t>(channels - first, 0, 8);
    const std::int64_t rows = held > 0 ? std::max<std::int64_t>(frames - phase + phases - 1, 0) / phases : 0;
    const std::uint32_t* from = in + phase * frame_stride + first * channel_stride;
    std::uint16_t* piece = std::fill_n(out, 8 * before, 0);
    for (std::int64_t row = 0; row < rows; ++row, from += phases * frame_stride, piece += 8) {
      if (held == 8) {
        for (int i = 0; i < 8; ++i) piece[i] = bf16(from[i * channel_stride]);
      } else {
        for (int i = 0; i < 8; ++i) piece[i] = i < held ? bf16(from[i * channel_stride]) : 0;
      }
    }
    std::fill_n(piece, 8 * (line - before - rows), 0);
  }
}

// Blocks of 64 x 64 bf16 in A order (tiles of 4 x 8), `col_blocks` beside each other -> rows x cols fp32.
extern "C" void unpack_a(const std::uint16_t* blocks, std::int64_t col_blocks, std::uint32_t* out, std::int64_t rows,
                         std::int64_t cols) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::uint16_t* row_of_blocks = blocks + row / 64 * col_blocks * 4096 + row % 64 / 4 * 256 + row % 4 * 8;
    for (std::int64_t col = 0; col < cols; col += 8, out += 8) {
      const std::uint16_t* piece = row_of_blocks + col / 64 * 4096 + col % 64 / 8 * 32;
      if (cols - col < 8) {
        for (std::int64_t i = 0; i < cols - col; ++i) out[i] = static_cast<std::uint32_t>(piece[i]) << 16;
        out += cols - col;
        break;
      }
      for (int i = 0; i < 8; ++i) out[i] = static_cast<std::uint32_t>(piece[i]) << 16;
    }
  }
}
