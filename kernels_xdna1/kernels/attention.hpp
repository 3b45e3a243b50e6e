// What the attention kernels keep in the second held A object: per row of the query block, spread over the 4x4 tile that
// the row is in, a 16-row piece of the scores, lane sums of p and the running maximum.
#pragma once

#include "arithmetic.hpp"

struct attention_state {
    float *scores, *sums, *maxima;
    explicit attention_state(bfloat16 *a1)
        : scores(reinterpret_cast<float *>(a1)), sums(scores + 4 * sum_row), maxima(sums + row_tiles * sum_tile) {}
};
