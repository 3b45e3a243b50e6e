"""Commands <-> words against what mlir-aie makes of the same commands, limits, and the round trip."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_xdna.lowering.commands.check import first_difference, from_json, main
from torch_xdna.lowering.commands.commands import Dma, MaskWrite, Wait, Write32, token_id, with_token_ids
from torch_xdna.lowering.commands.decode import DecodeError, decode, device_columns, listing, records
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.registers import RECORD_WORDS
from torch_xdna.lowering.errors import LimitError

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "npu_instructions.json").read_text())
PROGRAMS = json.loads((DATA / "npu_controller_ids.json").read_text())
LIMITS = json.loads((DATA / "npu_limits.json").read_text())


def test_every_golden_case_matches_word_for_word():
    assert [first_difference(case) for case in CASES] == [None] * 150


def test_every_golden_stream_decodes_to_its_commands():
    for case in CASES:
        words = np.array([int(word, 16) for word in case["words"]], dtype=np.uint32)
        commands = [from_json(entry) for entry in case["commands"]]
        decoded = decode(words)
        assert decoded == [c.in_words() if isinstance(c, Dma) else c for c in commands]
        assert encode(decoded).tolist() == words.tolist()


def test_check_prints_counts_and_first_difference(tmp_path):
    broken = json.loads(json.dumps(CASES[:3]))
    broken[1]["words"][7] = "deadbeef"
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(broken))
    run = subprocess.run(
        [sys.executable, "-m", "torch_xdna.lowering.commands", "check", str(file)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stdout.splitlines()[0] == "2 of 3 cases match word for word"
    assert run.stdout.splitlines()[1].startswith("case 1: word 7: ")
    assert "expected deadbeef" in run.stdout


def test_every_program_of_the_driver_matches_up_to_repeated_token_ids():
    assert [first_difference(case) for case in PROGRAMS] == [None] * 12


def test_a_program_of_the_driver_without_one_of_its_first_ids_differs():
    """Ids that only repeat may go; the first of a channel may not, nor may another value stand there."""
    for case in PROGRAMS:
        words = [int(word, 16) for word in case["words"]]
        positions, at = [], 4
        while at < len(words):
            if words[at] == 3:
                positions.append(at)
            at += RECORD_WORDS[words[at]]
        seen = set()
        for at in positions:
            without = [*words[:2], words[2] - 1, words[3] - 28, *words[4:at], *words[at + 7 :]]
            other = [*words[: at + 4], 0x1A00, *words[at + 5 :]]
            first = words[at + 2] not in seen
            seen.add(words[at + 2])
            found = first_difference({**case, "words": [f"{word:08x}" for word in without]})
            assert (found is not None) == first, found
            assert first_difference({**case, "words": [f"{word:08x}" for word in other]}) is not None


def without_ids(words: list[int]) -> list[int]:
    """A stream of mlir-aie with every maskwrite taken out, its header's counts included."""
    kept, records, at = [], 0, 4
    while at < len(words):
        size = RECORD_WORDS[words[at]]
        if words[at] != 3:
            kept += words[at : at + size]
            records += 1
        at += size
    return [*words[:2], records, 4 * (4 + len(kept)), *kept]


def test_a_whole_program_without_any_id_differs():
    """As the encoder wrote it once: with the columns it is said to run on, it is no stream for tiles without an id."""
    for case in PROGRAMS:
        words = without_ids([int(word, 16) for word in case["words"]])
        assert (
            words == encode([from_json(c) for c in case["commands"]], device_columns=case["columns"]).tolist()
        )
        stripped = {**case, "words": [f"{word:08x}" for word in words]}
        assert first_difference(stripped).startswith("record ")
        if case["columns"] == 4:  # which a case without columns runs on
            assert first_difference({k: v for k, v in stripped.items() if k != "columns"}) is None


def test_a_write_to_other_bits_of_a_control_register_is_no_repeated_id():
    case = PROGRAMS[0]
    words = [int(word, 16) for word in case["words"]]
    positions, at = [], 4
    while at < len(words):
        if words[at] == 3:
            positions.append(at)
        at += RECORD_WORDS[words[at]]
    last = positions[-1]
    assert words[last + 2] in [words[at + 2] for at in positions[:-1]]  # a repetition
    words[last + 4 : last + 6] = [0xF02, 0x1F02]  # resets the channel as well
    assert "MaskWrite" in first_difference({**case, "words": [f"{word:08x}" for word in words]})


def test_check_says_how_programs_were_compared_and_what_words_cannot_be_read(tmp_path):
    broken = json.loads(json.dumps(PROGRAMS[:3]))
    broken[1]["words"][4] = "000000ff"
    file = tmp_path / "programs.json"
    file.write_text(json.dumps(broken))
    run = subprocess.run(
        [sys.executable, "-m", "torch_xdna.lowering.commands", "check", str(file)],
        capture_output=True,
        text=True,
    )
    first, second = run.stdout.splitlines()
    assert first == "2 of 3 cases match word for word, 3 of them compared up to repeated token ids"
    assert second.startswith("case 1: the words of the case are no instruction stream: ")


def test_token_ids_stand_before_the_first_push_of_each_channel_that_asks_for_a_token():
    quiet = Dma(0, "MM2S", 1, 1, 0, 0, (1, 1, 1, 8), (0, 0, 0, 1))
    loud = dataclasses.replace(quiet, issue_token=True)
    result = Dma(2, "S2MM", 0, 2, 1, 0, (1, 1, 1, 8), (0, 0, 0, 1))
    assert with_token_ids([quiet, loud, result, loud]) == [
        quiet,
        token_id(0, "MM2S", 1),
        loud,
        token_id(2, "S2MM", 0),
        result,
        loud,
    ]
    record = encode([token_id(1, "MM2S", 0)])[4:].tolist()
    assert record == [3, 0, 1 << 25 | 0x1D210, 0, 0xF00, 0x1F00, 28]
    assert decode(encode([token_id(1, "MM2S", 0)])) == [MaskWrite(1, 0, 0x1D210, 0xF00, 0x1F00)]
    other = MaskWrite(3, 2, 0x1F000, 5, 7)
    assert listing([token_id(3, "S2MM", 1), other]).splitlines() == [
        "     0  col 3 S2MM1 token id 15",
        "     1  tile (3, 2) 0x1f000 write 0x00000005 under mask 0x00000007",
    ]


def transfer(entry):
    fields = {k: entry[k] for k in ("element_bytes", "offset", "bd")}
    return Dma(0, "MM2S", 0, arg=0, sizes=tuple(entry["sizes"]), strides=tuple(entry["strides"]), **fields)


def fits_registers(entry):
    """What mlir-aie's verifier lets through although no register field holds it."""
    words = [stride * entry["element_bytes"] // 4 for stride in entry["strides"]]
    return entry["bd"] <= 15 and entry["sizes"][0] <= 64 and max(words) <= 1 << 20


@pytest.mark.parametrize(
    "entry", LIMITS, ids=lambda e: f"{e['element_bytes']}-{e['sizes']}-{e['strides']}-{e['bd']}"
)
def test_refuses_what_mlir_aie_refuses_and_what_no_field_holds(entry):
    if entry["accepted"] and fits_registers(entry):
        assert len(encode([transfer(entry)])) == 34
    else:
        with pytest.raises(LimitError):
            encode([transfer(entry)])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"bd": 16}, "shim descriptor number"),
        ({"sizes": (65, 1, 1, 4)}, "shim iteration"),
        ({"column": 4}, "columns"),
        ({"channel": 2}, "shim DMA channels"),
        ({"direction": "up"}, "shim DMA channels"),
        ({"offset": 1 << 30}, "argument offset"),
        ({"offset": -4}, "transfer"),
        ({"sizes": (1, 0, 1, 4)}, "transfer size"),
        ({"element_bytes": 8}, "transfer element"),
        ({"sizes": (1, 2, 2, 4), "strides": (0, (1 << 20) + 1, 8, 1)}, "shim step"),
        ({"sizes": (1, 1, 1, 1 << 32)}, "shim transfer length"),
    ],
)
def test_limit_errors_name_the_limit(change, name):
    base = Dma(0, "MM2S", 0, bd=0, arg=0, offset=0, sizes=(1, 1, 1, 4), strides=(0, 0, 0, 1))
    with pytest.raises(LimitError, match=f"^{name}"):
        encode([dataclasses.replace(base, **change)])


def test_largest_values_that_fit():
    dma = Dma(3, "S2MM", 1, 15, 7, (1 << 30) - 1, (64, 5, 1023, 1023), (1 << 20, 1 << 20, 1 << 20, 1 << 20))
    assert decode(encode([dma])) == [dma.in_words()]
    assert dma.in_words() == dataclasses.replace(dma, issue_token=True)


@st.composite
def transfers(draw):
    width = draw(st.sampled_from([1, 2, 4]))
    unit = 4 // width
    run = draw(st.integers(1, 1023)) * unit
    sizes = [draw(st.integers(1, 64)), draw(st.integers(1, 70)), draw(st.integers(1, 1023)), run]
    strides = [draw(st.integers(1, 1 << 20)) * unit for _ in range(3)] + [1]
    if draw(st.booleans()):
        strides[0] = 0
    if draw(st.booleans()):  # linear
        sizes[1:], strides[1:] = [1, 1, draw(st.integers(1, 1 << 28)) * unit], [0, 0, 1]
    return Dma(
        draw(st.integers(0, 3)),
        draw(st.sampled_from(["MM2S", "S2MM"])),
        draw(st.integers(0, 1)),
        draw(st.integers(0, 15)),
        draw(st.integers(0, 5)),
        draw(st.integers(0, (1 << 30) - 1)) * unit,
        tuple(sizes),
        tuple(strides),
        width,
        draw(st.booleans()),
    )


waits = st.builds(Wait, st.integers(0, 3), st.sampled_from(["MM2S", "S2MM"]), st.integers(0, 1))
writes = st.builds(
    Write32,
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(0, (1 << 18) - 1).map(lambda w: 4 * w),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(transfers() | waits | writes, max_size=8), st.sampled_from([1, 2, 3, 4]))
def test_decode_inverts_encode(commands, columns):
    words = encode(commands, device_columns=columns)
    decoded = decode(words)
    assert decoded == [c.in_words() if isinstance(c, Dma) else c for c in commands]
    assert encode(decoded, device_columns=columns).tolist() == words.tolist()
    assert device_columns(words) == columns
    assert len(listing(decoded).splitlines()) == len(commands)


def test_every_flipped_bit_is_refused_or_changes_the_commands():
    commands = [
        Dma(1, "MM2S", 1, 3, 1, 64, (5, 3, 7, 16), (4096, 512, 32, 1)),
        Dma(2, "S2MM", 0, 14, 0, 0, (2, 1, 1, 2048), (0, 0, 0, 1)),
        Wait(2, "S2MM", 0),
        Write32(0, 3, 0x1F000, 0x12345678),
        MaskWrite(1, 4, 0x1F000, 0x12345678, 0xFFFF0000),
    ]
    original = encode(commands)
    before = decode(original)
    for index in range(len(original)):
        for bit in range(32):
            words = original.copy()
            words[index] ^= np.uint32(1 << bit)
            try:
                decoded = decode(words)
            except DecodeError as error:
                assert str(error).startswith("word ")
                continue
            assert decoded != before or device_columns(words) != 4
            assert encode(decoded, device_columns=device_columns(words)).tolist() == words.tolist()


def test_records_that_make_no_transfer_stay_raw():
    words = encode([Dma(0, "MM2S", 0, bd=2, arg=0, offset=0, sizes=(1, 1, 1, 4), strides=(0, 0, 0, 1))])
    words[-2] = 3  # pushes a descriptor that this stream did not write
    assert [type(c).__name__ for c in decode(words)] == ["BlockWrite", "AddressPatch", "Write32"]
    assert len(records(words)) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "can't be read"),
        ("no json", "JSONDecodeError"),
        ('{"a": 1}', "TypeError"),
        ("[{}]", "KeyError"),
    ],
)
def test_check_says_in_a_sentence_what_is_wrong_with_a_file(tmp_path, text, says):
    path = tmp_path / "cases.json"
    if text is not None:
        path.write_text(text)
    answer = main(["check", str(path)])
    assert isinstance(answer, str) and says in answer and "\n" not in answer
