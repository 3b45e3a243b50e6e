"""fp32 <-> bf16 against ml_dtypes, ties and special values included."""

import ml_dtypes
import numpy as np

from torch_xdna.lowering.host_data.bf16 import from_bf16, round_bf16, to_bf16


def test_agrees_with_ml_dtypes_on_random_bits():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    finite = ~np.isnan(values)
    assert np.array_equal(to_bf16(values)[finite], expected[finite])
    assert np.isnan(from_bf16(to_bf16(values))[~finite]).all()


def test_ties_go_to_even_and_specials_survive():
    bits = np.array(
        [0x3F808000, 0x3F818000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x7F800001, 0xFFFFFFFF, 0x80000000],
        np.uint32,
    )
    expected = [0x3F80, 0x3F82, 0x7F80, 0xFF80, 0x7F80, 0x7FC0, 0xFFC0, 0x8000]
    assert to_bf16(bits.view(np.float32)).tolist() == expected


def test_round_trip_of_every_bf16():
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = from_bf16(bits)
    finite = ~np.isnan(values)
    assert np.array_equal(to_bf16(values)[finite], bits[finite])
    assert np.array_equal(round_bf16(values)[finite], values[finite])
    assert to_bf16(np.float32(1.5)).shape == ()
