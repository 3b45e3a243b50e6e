"""Runs every kernel in every variant on small, partly hostile operands. A script of its own for the sanitizers."""

import sys

import numpy as np
from core_driver import Core, rounded

from torch_xdna.kernels_xdna1 import host


def run(kernels):
    core, random = Core(kernels), np.random.default_rng(5)

    def matrix(*shape):
        return rounded(random.standard_normal(shape))

    for order in (0, 1, 2):
        core.gemm(matrix(70, 64), matrix(64, 64), matrix(64), order=order, valid=(1, 69))
    for x in (
        matrix(64, 128),
        np.full((64, 128), np.nan),
        np.full((64, 128), -np.inf),
        matrix(64, 128) * 1e38,
    ):
        core.gemm(x, matrix(64, 128), gelu=True, residual=matrix(64, 64))
        core.attention(x[:, :64], x[:, 64:], matrix(64, 64))
        core.rows(0, x, gamma=np.ones(128), beta=np.zeros(128))
        core.rows(1, x)
        core.rows(2, x)
        core.rows(3, x, matrix(64, 128))
    core.attention(matrix(64, 64), matrix(70, 64), matrix(70, 64))
    core.rows(1, matrix(64, 100))


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        run(host.load(sanitize="sanitize" in sys.argv[1:]))
    print("every kernel ran")
