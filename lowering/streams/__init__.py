"""What a step moves and computes: `gemm`, `attention`, `rows` -> `step_streams`; `descriptors` that fit, `split`."""
