// The one division: O / sum, rounded to bf16, in A order.
#include "attention.hpp"

extern "C" void attn_finish(const float *__restrict acc, const bfloat16 *__restrict a1, bfloat16 *__restrict c) {
    round_to_nearest_even();
    const attention_state state(const_cast<bfloat16 *>(a1));
    for (int i = 0; i < row_tiles; ++i) {
        const split<> inverse = parts(reciprocal(row_sums<4>(load_sums(state.sums + i * sum_tile))));
        const auto quotient = [&](int j) {
            return product(parts(load_sums(acc + i * sum_row + j * sum_tile)), inverse).to_vector<bfloat16>();
        };
        AT_LEAST(8)
        for (int j = 0; j < a_columns; ++j) aie::store_v(c + i * a_row + j * a_tile, a_order(quotient(2 * j), quotient(2 * j + 1)));
    }
}
