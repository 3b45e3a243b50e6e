"""Operands that look like a Whisper encoder's, and ones that break careless arithmetic. All exact in bf16."""

import numpy as np
from core_driver import rounded


def fc1_activations(random, *shape):
    """Mean -2, a third of the mass in [-6, -3)."""
    low = random.uniform(-6, -3, shape)
    rest = random.normal(-1, 1.6, shape)
    return rounded(np.where(random.random(shape) < 1 / 3, low, rest))


def residual_stream(random, rows, cols):
    """Unit scale, five channels fifty times larger."""
    x = random.standard_normal((rows, cols))
    x[:, random.choice(cols, 5, replace=False)] *= 50
    return rounded(x)


def hostile(random, rows, cols):
    """Name -> matrix: constants, one-hot, huge, tiny, negative zeros, zero padding."""
    one_hot = np.zeros((rows, cols))
    one_hot[np.arange(rows), np.arange(rows) % cols] = 1
    padded = rounded(random.standard_normal((rows, cols)))
    padded[rows // 2 :] = 0
    return {
        "constant": np.full((rows, cols), 3.0, np.float32),
        "one-hot": rounded(one_hot),
        "huge": rounded(random.standard_normal((rows, cols)) * 1e15),
        "tiny": rounded(random.standard_normal((rows, cols)) * 1e-15),
        "negative zero": np.full((rows, cols), -0.0, np.float32),
        "padded rows": padded,
    }


def ulp(y):
    """Spacing of bf16 numbers at |y| (of normal numbers)."""
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(y), 2.0**-126))) - 7)


def relative_l2(got, exact):
    """|got - exact| / |exact|; 0 if both are zero."""
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    error, norm = np.linalg.norm(got - exact), np.linalg.norm(exact)
    return error / norm if norm else error
