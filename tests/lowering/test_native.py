"""The compiled loops against the numpy ones that they stand for, bit for bit; and numpy where nothing compiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from torch_xdna.kernels_xdna1 import host_compiler
from torch_xdna.lowering.host_data import bf16, blocks, native
from torch_xdna.lowering.host_data.conv_input import conv_input


@pytest.fixture
def compiled() -> native.Native:
    found = native.functions()
    if found is None:
        pytest.skip("no C++ compiler")
    return found


def in_numpy(monkeypatch: pytest.MonkeyPatch, function: Callable, *args: object) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(native, "functions", lambda: None)
        return function(*args)


def test_every_upper_half_and_what_decides_the_rounding(
    compiled: native.Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | lower).view(np.float32)
    found = compiled.to_bf16(values)
    assert found.shape == values.shape
    assert np.array_equal(found, in_numpy(monkeypatch, bf16.to_bf16, values))
    assert np.array_equal(found, bf16.to_bf16(values)), "what callers get"


@pytest.mark.parametrize("layout", ["F", "strided", "scalar", "empty"])
def test_arrays_of_any_layout(layout: str) -> None:
    values = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    array = {
        "F": np.asfortranarray(values),
        "strided": values[::2, ::-1],
        "scalar": np.float32(1.5),
        "empty": values[:0],
    }[layout]
    found = bf16.to_bf16(array)
    assert found.shape == np.shape(array)
    one_by_one = [int(bf16.to_bf16(value)) for value in np.ravel(array)]
    assert found.ravel().tolist() == one_by_one


@pytest.mark.parametrize(
    ("rows", "cols"), [(192, 128), (130, 128), (129, 72), (150, 113), (191, 127), (64, 1), (1, 64)]
)
def test_blocks(compiled: native.Native, monkeypatch: pytest.MonkeyPatch, rows: int, cols: int) -> None:
    """Uneven sizes too; columns of blocks that hold nothing of the result are passed over."""
    bits = np.random.default_rng(1).integers(0, 1 << 16, (4, 4, 4096)).astype(np.uint16)
    found = compiled.unpack_a(bits, rows, cols).view(np.uint32)
    assert np.array_equal(found, in_numpy(monkeypatch, blocks.unpack_a, bits, rows, cols).view(np.uint32))


def test_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(2).standard_normal((200, 300)).astype(np.float32)
    packed = blocks.pack_a(matrix, 4, 5)
    assert np.array_equal(blocks.unpack_a(packed, 200, 300), bf16.round_bf16(matrix))
    assert np.array_equal(packed, in_numpy(monkeypatch, blocks.pack_a, matrix, 4, 5))
    every_second = np.repeat(packed, 2, axis=1)[:, ::2]
    assert np.array_equal(blocks.unpack_a(every_second, 200, 300), bf16.round_bf16(matrix)), "not contiguous"


@pytest.mark.parametrize("why", ["no compiler", "no folder"])
def test_numpy_where_nothing_compiles(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def missing() -> tuple[str, str]:
        raise host_compiler.CompilerError("no C++20 compiler is here")

    if why == "no compiler":
        monkeypatch.setattr(host_compiler, "compiler", missing)
    else:
        monkeypatch.setenv("TORCH_XDNA_CACHE", "/dev/null/cache")
    native.functions.cache_clear()
    try:
        assert native.functions() is None
        values = np.linspace(-3, 3, 2 * bf16.FEW, dtype=np.float32)
        assert np.array_equal(bf16.to_bf16(values), [bf16.to_bf16(v) for v in values])
    finally:
        native.functions.cache_clear()


@pytest.mark.parametrize("channels", [80, 128, 12, 75])
@pytest.mark.parametrize(("centers", "phases"), [((-1, 0, 1), 2), ((0,), 1)])
@pytest.mark.parametrize("layout", ["frames", "channels", "every second"])
def test_frames(
    compiled: native.Native,
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    centers: tuple[int, ...],
    phases: int,
    layout: str,
) -> None:
    """Mel as Whisper has it (a row per channel), as a matrix wants it, and neither."""
    count = 3000 if channels >= 75 else 2999
    matrix = np.random.default_rng(3).standard_normal((count, channels)).astype(np.float32)
    if layout == "channels":
        matrix = np.ascontiguousarray(matrix.T).T
    elif layout == "every second":
        matrix = np.repeat(matrix, 2, axis=1)[::-1, ::2]
    row_blocks = blocks.padded_blocks(-(-count // phases))
    made = conv_input(channels, centers, phases, row_blocks, "mel")
    found, wanted = (np.full(made.buffer.blocks * 4096, 7, np.uint16) for _ in range(2))
    made.write(found, matrix)
    in_numpy(monkeypatch, made.write, wanted, matrix)
    assert np.array_equal(found, wanted)
