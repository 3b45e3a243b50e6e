"""What a step moves and computes: `gemm`, `attention`, `rows` -> `step_streams`; `descriptors` fits the hardware."""
