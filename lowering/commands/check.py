"""Compare our words with those of mlir-aie for the same commands.

    python -m torch_xdna.lowering.commands check FILE.json

FILE is a list of cases {commands, words, optionally columns and what}; `words` are hexadecimal. A case that names its
columns is a whole program on routed tiles, which have controller ids: mlir-aie sets the id before every push that asks
for a token and ours once per channel. Such cases are equal if all other records are, in order, and each push finds the
same id in force; so a stream in which the first id of a channel is missing differs, or one without any. A case without
columns holds for tiles without an id and is compared word by word, unless its words set one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_xdna.lowering import limits
from torch_xdna.lowering.commands.commands import Command, Dma, MaskWrite, Wait, Write32, with_token_ids
from torch_xdna.lowering.commands.decode import DecodeError, Record, records
from torch_xdna.lowering.commands.encode import encode
from torch_xdna.lowering.commands.registers import (
    CONTROL,
    QUEUE,
    STREAM_HEADER_WORDS,
    TOKEN_BIT,
    TOKEN_ID_MASK,
)
from torch_xdna.lowering.errors import LimitError


def from_json(entry: Mapping[str, Any]) -> Command:
    """A command from its JSON form: `op` ("dma", "wait", "write32") and the fields of the dataclass."""
    fields = {key: value for key, value in entry.items() if key != "op"}
    if entry["op"] == "dma":
        return Dma(**{**fields, "sizes": tuple(fields["sizes"]), "strides": tuple(fields["strides"])})
    return {"wait": Wait, "write32": Write32}[entry["op"]](**fields)


def first_difference(case: Mapping[str, Any]) -> str | None:
    """None if encoding a case's commands gives its words, else where they first differ."""
    expected = [int(word, 16) for word in case["words"]]
    commands = [from_json(entry) for entry in case["commands"]]
    columns = int(case.get("columns", limits.COLUMNS.maximum))
    try:
        if has_token_ids(case):
            actual = encode(with_token_ids(commands), device_columns=columns).tolist()
            return difference_in_effect(actual, expected)
        actual = encode(commands, device_columns=columns).tolist()
    except LimitError as error:
        return f"refused: {error}"
    except DecodeError as error:
        return f"the words of the case are no instruction stream: {error}"
    for index, (ours, other) in enumerate(zip(actual, expected)):
        if ours != other:
            return f"word {index}: {ours:08x}, expected {other:08x}"
    return None if len(actual) == len(expected) else f"{len(actual)} words, expected {len(expected)}"


def has_token_ids(case: Mapping[str, Any]) -> bool:
    """Whether a case is compared up to repeated token ids: one of a whole program, or whose words set an id."""
    if "columns" in case:
        return True
    try:
        found = records([int(word, 16) for word in case["words"]])
    except DecodeError:
        return False  # then it is compared word by word
    return any(isinstance(record, MaskWrite) for record in found)


def difference_in_effect(actual: Sequence[int], expected: Sequence[int]) -> str | None:
    """None, or where two streams differ apart from repeated token ids. Raises `DecodeError`."""
    header = STREAM_HEADER_WORDS - 2  # behind it: the number of records and of bytes
    if actual[:header] != expected[:header]:
        return f"header {actual[:header]}, expected {expected[:header]}"
    ours, theirs = effects(records(actual)), effects(records(expected))
    for index, (mine, other) in enumerate(zip(ours, theirs)):
        if mine != other:
            return f"record {index} without token ids: {mine}, expected {other}"
    return None if len(ours) == len(theirs) else f"{len(ours)} records, expected {len(theirs)}"


def effects(stream: Sequence[Record]) -> list[tuple[Record, int | None]]:
    """Each record but those that only set a channel's token id, with the control bits (None: never written) that
    a push which asks for a token finds. A write to other bits of a control register stays: they are no ids."""
    control: dict[tuple[int, int], int] = {}
    control_of = {QUEUE[channel]: address for channel, address in CONTROL.items()}
    result: list[tuple[Record, int | None]] = []
    for record in stream:
        if isinstance(record, MaskWrite) and record.row == 0 and record.address in CONTROL.values():
            before = control.get((record.column, record.address), 0)
            control[record.column, record.address] = before & ~record.mask | record.value & record.mask
            if record.mask == TOKEN_ID_MASK and not record.value & ~TOKEN_ID_MASK:
                continue
        found = None
        if isinstance(record, Write32) and record.row == 0 and record.value & TOKEN_BIT:
            found = control.get((record.column, control_of.get(record.address, -1)))
        result.append((record, found))
    return result


def check(path: str | Path) -> bool:
    """Print how many cases of a file match, and the first difference of each that does not."""
    cases = json.loads(Path(path).read_text())
    differences = [first_difference(case) for case in cases]
    up_to = sum(has_token_ids(case) for case in cases)
    how = f", {up_to} of them compared up to repeated token ids" if up_to else ""
    print(f"{differences.count(None)} of {len(differences)} cases match word for word{how}")
    for index, difference in enumerate(differences):
        if difference:
            print(f"case {index}: {difference}")
    return not any(differences)


def main(arguments: list[str]) -> int | str:
    """0 if all cases match, 1 if not; a sentence for a file that can't be read."""
    if len(arguments) != 2 or arguments[0] != "check":
        return "usage: python -m torch_xdna.lowering.commands check FILE.json"
    try:
        return 0 if check(arguments[1]) else 1
    except OSError as error:
        return f"{arguments[1]} can't be read: {error.strerror}"
    except (ValueError, KeyError, TypeError) as error:
        return f"{arguments[1]} is no list of {{commands, words}} in JSON: {type(error).__name__}: {error}"
