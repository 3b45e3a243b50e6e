"""Each pass of a compile as text, for three small modules: what a change does to a stage shows in the review.

The texts are those of TORCH_XDNA_DUMP, from the matcher's report to the streams, on two columns. A module's file holds
them one after another; `pytest tests/golden --update` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_xdna.lowering.ops import Region

HERE = Path(__file__).parent
TORCH = "2.13."
STAGES = ("2_report", "3_region", "4_steps", "5_streams")


class Block(nn.Module):
    """A transformer layer as Whisper has it, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(128), nn.LayerNorm(128)
        self.q, self.k, self.v = nn.Linear(128, 128), nn.Linear(128, 128, bias=False), nn.Linear(128, 128)
        self.out, self.fc1, self.fc2 = nn.Linear(128, 128), nn.Linear(128, 256), nn.Linear(256, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(2, (2, 64)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Stem(nn.Module):
    """Whisper's two convolutions and its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(80, 64, 3, padding=1), nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.zeros(40, 64))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.conv2(F.gelu(self.conv1(mel)))).permute(0, 2, 1) + self.positions


class Eager(nn.Module):
    """Two regions around an op that stays on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.second(torch.cumsum(self.first(x), 1)), -1)


CASES = {"block": (Block, (1, 70, 128)), "stem": (Stem, (1, 80, 80)), "eager": (Eager, (1, 10, 64))}


@pytest.mark.skipif(
    not torch.__version__.startswith(TORCH),
    reason=f"torch names ops otherwise than {TORCH}, which made the texts",
)
@pytest.mark.filterwarnings("ignore:xdna")
@pytest.mark.parametrize("name", CASES)
def test_passes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("TORCH_XDNA_DUMP", str(tmp_path))
    module, shape = CASES[name]
    torch._dynamo.reset()
    with torch.no_grad():
        options = {"device": "emulator", "columns": 2}
        torch.compile(module().eval(), backend="xdna", options=options)(torch.zeros(shape))
    torch._dynamo.reset()
    (folder,) = tmp_path.iterdir()
    files = sorted(f for f in folder.iterdir() if f.name.startswith(STAGES))
    found = "".join(f"==> {f.name}\n{f.read_text()}\n" for f in files)
    found = "\n".join(line.rstrip() for line in found.splitlines()) + "\n"
    golden = HERE / f"{name}.txt"
    if request.config.getoption("--update", default=False):
        golden.write_text(found)
    assert found == golden.read_text(), (
        f"a pass changed; if that was meant: pytest tests/golden --update ({golden.name})"
    )


@pytest.mark.parametrize("name", CASES)
def test_regions_can_be_read_again(name: str) -> None:
    parts = (HERE / f"{name}.txt").read_text().split("==> ")
    regions = [text.partition("\n")[2] for text in parts if text.startswith("3_region")]
    assert regions and all(str(Region.parse(text)) == text.strip() for text in regions)
