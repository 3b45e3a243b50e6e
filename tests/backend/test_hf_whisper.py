"""The harness for Hugging Face's own tests, on a folder that looks like theirs."""

from __future__ import annotations

import hf_whisper

TESTS = '''
import torch, torch_xdna
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

def both():
    """An encoder as it is made here, and what it gives eager."""
    torch.manual_seed(0)
    config = WhisperConfig(encoder_layers=1, d_model=64, encoder_attention_heads=1, encoder_ffn_dim=64,
                           max_source_positions=10, num_mel_bins=8)
    encoder, mel = WhisperEncoder(config).eval(), torch.randn(1, 8, 20)
    with torch.no_grad():
        return encoder(mel).last_hidden_state, encoder.forward(mel).last_hidden_state

def test_close(): torch.testing.assert_close(*both(), atol=3e-2, rtol=3e-2)
def test_closer_than_bf16(): torch.testing.assert_close(*both(), atol=1e-7, rtol=0)
def test_wrong():
    both()
    assert not torch_xdna.reports()
def test_fails_anyway(): assert False
'''


def test_what_passes_only_eager(tmp_path, capsys) -> None:
    folder = tmp_path / "tests" / "models" / "whisper"
    folder.mkdir(parents=True)
    (folder / "test_like_theirs.py").write_text(TESTS)
    assert hf_whisper.main([str(tmp_path), "-p", "no:randomly", "-p", "no:cacheprovider"]) == 1
    said = capsys.readouterr().out
    assert "1 pass compiled of the 3 that pass eager" in said
    assert "1 ask for more than bf16 gives" in said and "test_closer_than_bf16" in said
    assert "FAILS" in said and "test_wrong" in said and "test_fails_anyway" not in said


def test_what_counts_as_rounding() -> None:
    assert hf_whisper.is_rounding("Greatest absolute difference: 0.0012 at index (0, 1)")
    found = "mean relative difference for logits: 1.286e-03, torch atol = 1e-06, torch rtol = 0.0001"
    assert hf_whisper.is_rounding(found) and not hf_whisper.is_rounding(found.replace("e-03", "e-01"))
    assert not hf_whisper.is_rounding("Greatest absolute difference: 0.3 at index (0, 1)")
    assert not hf_whisper.is_rounding("AttributeError: prepared")
