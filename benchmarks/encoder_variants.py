"""What the encoder is compared with: how each variant is made from the same weights, and what it needs.

A variant's `load` returns a function from the mel array (batch, 80, 3000) fp32 to the encoder's output
(batch, 1500, width) as a numpy array. Ahead of that, once and in a process of its own, `convert` writes what a
runtime without torch loads; such runtimes then never import torch, as they would not in use.

faster-whisper has no row: its `WhisperModel.encode` is one call of CTranslate2's `Whisper.encode`.

OpenVINO 2026.4.1's torch.compile backend fails with torch 2.13 in its default options: it traces the graph again
by make_fx on real tensors, whose symbolic sizes land without a source in Dynamo's own shape environment, and
torch 2.13 refuses to write guards for those. `aot_autograd`, an option of its own, goes another way and works; as
weights reach it as inputs, it can't pack them. The model that `ov.convert_model` makes has them as constants.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"toy": (64, 1), "tiny": (384, 4), "base": (512, 6), "small": (768, 12)}  # width, layers
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Variant:
    """`load(size, folder, threads)`; `convert(encoder, mel, folder)`; `needs`: the package that it imports."""

    load: Callable[[str, Path, int], Run]
    precision: str  # of operands; sums are fp32 or int32
    what: str
    needs: str | None = None
    convert: Callable[[Any, Any, Path], None] | None = None


def build(size: str):
    """(encoder with random weights, mel of one clip), the same for every process."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    width, layers = SIZES[size]
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=width, encoder_layers=layers, encoder_attention_heads=width // 64, encoder_ffn_dim=4 * width
    )
    return WhisperEncoder(config).eval(), torch.randn(1, 80, 3000)


def eager(size: str, folder: Path, threads: int, dtype: str = "float32") -> Run:
    import torch

    return _from_torch(build(size)[0].to(getattr(torch, dtype)), getattr(torch, dtype))


def compiled(
    size: str, folder: Path, threads: int, backend: str, options: dict[str, Any] | None = None
) -> Run:
    import torch

    return _from_torch(torch.compile(build(size)[0], backend=backend, options=options))


def openvino_compiled(size: str, folder: Path, threads: int, aot_autograd: bool) -> Run:
    """OpenVINO's backend; an error where it quietly let Inductor or eager torch do the work."""
    import openvino.torch  # noqa: F401, registers the backend
    from openvino.frontend.pytorch.torchdynamo import execute

    options: dict[str, Any] = {"config": _openvino_config(threads)}
    if aot_autograd:
        options["aot_autograd"] = True
    run = compiled(size, folder, threads, "openvino", options)

    def checked(mel: np.ndarray) -> np.ndarray:
        output = run(mel)
        graphs = execute.partitioned_modules.values()
        outside = [n for g in graphs for n in g.graph.nodes if n.op == "call_function"]
        if not execute.compiled_cache or outside:
            raise RuntimeError(f"OpenVINO's backend left {len(outside) or 'all'} ops to torch")
        return output

    return checked


def openvino_converted(size: str, folder: Path, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    model = core.compile_model(folder / "openvino" / "encoder.xml", "CPU", _openvino_config(threads))
    request = model.create_infer_request()
    return lambda mel: request.infer([mel], share_inputs=True, share_outputs=True)[0]


def convert_openvino(encoder, mel, folder: Path) -> None:
    import openvino

    model = openvino.convert_model(encoder, example_input=mel)
    model.reshape(list(mel.shape))
    openvino.save_model(model, folder / "openvino" / "encoder.xml", compress_to_fp16=False)


def ctranslate2(size: str, folder: Path, threads: int, kind: str) -> Run:
    import ctranslate2

    model = ctranslate2.models.Whisper(
        str(folder / f"ctranslate2-{kind}"),
        device="cpu",
        compute_type=kind,
        inter_threads=1,
        intra_threads=threads,
    )
    return lambda mel: np.array(model.encode(ctranslate2.StorageView.from_array(mel)))


def convert_ctranslate2(encoder, mel, folder: Path, kind: str) -> None:
    """CTranslate2 takes whole Whispers only: the decoder is one narrow layer of 64 words, which no encode touches."""
    from ctranslate2.converters.transformers import WhisperLoader
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    given = encoder.config
    words = 64
    special = dict.fromkeys(
        ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), words - 1
    )
    config = WhisperConfig(
        d_model=given.d_model,
        encoder_layers=given.encoder_layers,
        encoder_attention_heads=given.encoder_attention_heads,
        encoder_ffn_dim=given.encoder_ffn_dim,
        decoder_layers=1,
        decoder_attention_heads=given.encoder_attention_heads,
        decoder_ffn_dim=64,
        vocab_size=words,
        **special,
    )
    whole = WhisperForConditionalGeneration(config).eval()
    whole.model.encoder = copy.deepcopy(encoder)  # quantizing works in place
    spec = WhisperLoader().get_model_spec(whole)
    spec.register_vocabulary([f"<{i}>" for i in range(words)])
    spec.validate()
    spec.optimize(quantization=kind)
    target = folder / f"ctranslate2-{kind}"
    target.mkdir()
    spec.save(str(target))


def _from_torch(model, dtype=None) -> Run:
    import torch

    def run(mel: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            output = model(torch.from_numpy(mel).to(dtype or torch.float32)).last_hidden_state
        return output.float().numpy()

    return run


def _openvino_config(threads: int) -> dict[str, Any]:
    return {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}


XDNA = {"device": "emulator", "fallback": "error"}
VARIANTS = {
    "eager": Variant(eager, "fp32", "PyTorch, nothing compiled"),
    "eager-bf16": Variant(partial(eager, dtype="bfloat16"), "bf16", "PyTorch, model and input in bf16"),
    "xdna": Variant(
        partial(compiled, backend="xdna", options=XDNA),
        "bf16, emulated",
        "this package on its emulator: fp32 kernels, rounded to bf16 where the NPU rounds",
    ),
    "inductor": Variant(
        partial(compiled, backend="inductor"), "fp32", "torch.compile's default, its caches empty"
    ),
    "openvino": Variant(
        partial(openvino_compiled, aot_autograd=True),
        "fp32",
        "OpenVINO's torch.compile backend, options={'aot_autograd': True}",
        "openvino",
    ),
    "openvino-default": Variant(
        partial(openvino_compiled, aot_autograd=False),
        "fp32",
        "OpenVINO's torch.compile backend without that option",
        "openvino",
    ),
    "openvino-converted": Variant(
        openvino_converted, "fp32", "ov.convert_model ahead of time, then no torch", "openvino", convert_openvino
    ),
    "ctranslate2": Variant(
        partial(ctranslate2, kind="float32"),
        "fp32",
        "CTranslate2's encoder (faster-whisper's too), converted ahead of time, no torch",
        "ctranslate2",
        partial(convert_ctranslate2, kind="float32"),
    ),
    "ctranslate2-int8": Variant(
        partial(ctranslate2, kind="int8"),
        "int8 weights and activations",
        "the same with its int8 products",
        "ctranslate2",
        partial(convert_ctranslate2, kind="int8"),
    ),
}  # fmt: skip
