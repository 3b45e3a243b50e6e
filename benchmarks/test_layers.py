"""Each layer of Whisper's encoder as eager fp32, eager bf16, Inductor and xdna (the emulator on this CPU).

    make bench
    make bench SELECT="base and fc1"

One table per layer and size, so pytest-benchmark's own table compares the variants. These are times of the CPU that
runs them: the emulator's, not an NPU's. Context 1500, batch 1, random weights. Rounds of one variant follow each other,
so on a machine that does other work too, compare with `benchmarks/encoder.py`, which interleaves them.
benchmarks/layers.py records the medians in benchmarks/results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

CONTEXT = 1500


@dataclass(frozen=True)
class Size:
    width: int
    layers: int

    @property
    def heads(self) -> int:
        return self.width // 64

    @property
    def config(self) -> WhisperConfig:
        return WhisperConfig(
            d_model=self.width,
            encoder_layers=self.layers,
            encoder_attention_heads=self.heads,
            encoder_ffn_dim=4 * self.width,
        )


SIZES = {"tiny": Size(384, 4), "base": Size(512, 6), "small": Size(768, 12)}


class Function(nn.Module):
    """A function of tensors as a module, so that every layer is compiled and cast alike."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


class QKV(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.v = nn.Linear(width, width), nn.Linear(width, width)
        self.k = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q(x), self.k(x), self.v(x)


def rows(cols: int) -> Tensor:
    return torch.randn(1, CONTEXT, cols)


LAYERS: dict[str, Callable[[Size], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "qkv": lambda s: (QKV(s.width), (rows(s.width),)),
    "fc1": lambda s: (nn.Sequential(nn.Linear(s.width, 4 * s.width), nn.GELU()), (rows(s.width),)),
    "fc2": lambda s: (nn.Linear(4 * s.width, s.width), (rows(4 * s.width),)),
    "layer_norm": lambda s: (nn.LayerNorm(s.width), (rows(s.width),)),
    "softmax": lambda s: (nn.Softmax(-1), (torch.randn(s.heads, CONTEXT, CONTEXT),)),
    "gelu": lambda s: (nn.GELU(), (rows(4 * s.width),)),
    "attention": lambda s: (
        Function(F.scaled_dot_product_attention),
        tuple(torch.randn(1, s.heads, CONTEXT, 64) for _ in range(3)),
    ),
    "layer": lambda s: (WhisperEncoder(s.config).layers[0], (rows(s.width), None)),
    "encoder": lambda s: (WhisperEncoder(s.config), (torch.randn(1, 80, 2 * CONTEXT),)),
}
VARIANTS = ("eager-fp32", "eager-bf16", "inductor", "xdna")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size", SIZES)
def test_layer(benchmark, size: str, layer: str, variant: str) -> None:
    module, inputs = LAYERS[layer](SIZES[size])
    run = module.eval()
    # torch.compile, not module.compile, which compiles nothing where the class is torch's own
    if variant == "eager-bf16":
        run = module.bfloat16()
        inputs = tuple(None if x is None else x.bfloat16() for x in inputs)
    elif variant == "inductor":
        run = torch.compile(module)
    elif variant == "xdna":
        run = torch.compile(module, backend="xdna", options={"device": "emulator", "fallback": "error"})
    benchmark.group = f"{size} {layer}"
    benchmark.extra_info.update(torch=torch.__version__, threads=torch.get_num_threads())
    run(*inputs)  # compiles
    assert counters["stats"]["unique_graphs"] == (0 if variant.startswith("eager") else 1)
    benchmark(run, *inputs)
