"""`torch-xdna disasm` and the text of a program."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from expected import Builder

from torch_xdna import lowering
from torch_xdna.cli.disasm import command
from torch_xdna.errors import XdnaError
from torch_xdna.lowering import listing
from torch_xdna.lowering.commands.encode import encode

ONE_COLUMN_OF_A_GEMM = """\
step 0: gemm fc: 300 x 96 -> 200
  header op gemm, outer 2, inner 2, extra 0, first_row 0, end_row 2147483647, groups 2
  column 0 A: 2 transfers
    push     1 wait    28  bd  0 -> arg0+0x0000000 8192 B  ; fc header
    push     2 wait    32  bd  1 -> arg1+0x0000000 2x(by 131072) 16384 B  ; x
  column 0 B: 1 transfers
    push     4 wait    33  bd  4 -> arg0+0x0002000 repeat 2x 24576 B  ; fc.weight
  column 0 C: 1 transfers
    push    21 wait    40  bd  8 <- arg1+0x0040000 8x(by 32768) 8192 B  ; fc
"""


def run(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)


def program():
    b = Builder()
    return lowering.lower(b.region(b.linear(b.input(300, 96), 200, "fc")))


def test_a_program_prints_its_steps_headers_and_transfers():
    assert ONE_COLUMN_OF_A_GEMM in listing.text(program())


def test_a_file_of_words_prints_in_order(tmp_path):
    file = tmp_path / "program.bin"
    file.write_bytes(program().words.astype("<u4").tobytes())
    lines = run(file).output.splitlines()
    assert lines[0] == "2,528 bytes, 44 commands, 4 columns"
    assert lines[1] == "     0  col 0 MM2S0 token id 15"
    assert lines[3] == "     2  col 0 MM2S0 bd  1 -> arg1+0x0000000 2x(by 131072) 16384 B token"
    assert lines[29] == "    28  col 0 MM2S0 wait"


def test_a_size_by_name_saves_its_words(tmp_path):
    file = tmp_path / "tiny.bin"
    result = run("--config", "tiny", "--columns", 2, "--step", 5, "--save", file)
    assert result.exit_code == 0
    steps = [line for line in result.output.splitlines() if line.startswith("step ")]
    assert steps[1:] == ["step 5: layer_norm layers.0.self_attn_layer_norm: 1500 x 384"]
    assert "2 columns" in run(file).output.splitlines()[0]
    whole = run("--config", "tiny", "--in-order").output
    assert "; step 4 gemm conv2" in whole
    assert len(run("--config", "tiny", "--summary").output.splitlines()) == 39


def test_a_folder_with_a_configuration(tmp_path):
    settings = {
        "model_type": "whisper", "d_model": 128, "encoder_layers": 1, "encoder_attention_heads": 2,
        "encoder_ffn_dim": 256, "num_mel_bins": 80, "max_source_positions": 50,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert "layers.0.fc1: 50 x 128 -> 256" in run("--model", tmp_path).output


def test_mistakes_are_one_sentence(tmp_path):
    file = tmp_path / "odd.bin"
    file.write_bytes(b"12345")
    with pytest.raises(XdnaError, match="5 bytes, no whole number of 32-bit words"):
        run(file)
    file.write_bytes(np.array([1, 2, 3, 4], "<u4").tobytes())
    with pytest.raises(XdnaError, match="no instruction stream of this NPU: word 0: version"):
        run(file)
    file.write_bytes(encode([]).tobytes())
    for wrong in ([], ["--config", "tiny", "--model", "x"], [file, "--config", "tiny"]):
        with pytest.raises(XdnaError, match="give one of FILE, --model or --config"):
            run(*wrong)
    with pytest.raises(XdnaError, match="model 'huge' is not known"):
        run("--config", "huge")
    with pytest.raises(XdnaError, match="no step 99"):
        run("--config", "tiny", "--step", 99)
