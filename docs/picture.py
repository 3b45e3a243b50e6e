"""ARCHITECTURE.md's picture as SVG: stages as boxes with their folder, what passes between them as arrows.

python docs/picture.py > docs/architecture.svg      # a test holds the file to this script, and each folder to exist
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

COLORS = {"torch_xdna": "#e8f0fb", "lowering": "#fbf1e3", "kernels_xdna1": "#e7f5ea", "": "#f4f4f4"}
HEIGHT = 54


@dataclass(frozen=True)
class Box:
    """A stage. `folder` from the root of the repository, empty for what is not ours; pixels."""

    x: int
    y: int
    width: int
    folder: str
    does: str

    @property
    def middle(self) -> tuple[int, int]:
        return self.x + self.width // 2, self.y + HEIGHT // 2


BOXES = {
    "user": Box(20, 20, 260, "", "the user's module, Dynamo's graph"),
    "capture": Box(20, 110, 260, "torch_xdna/capture.py", "functional ATen with the user's names"),
    "matching": Box(20, 200, 260, "torch_xdna/matching", "which nodes are which ops, or why not"),
    "partitioning": Box(20, 290, 260, "torch_xdna/partitioning", "regions for the device, GELU fused"),
    "execution": Box(20, 400, 260, "torch_xdna/execution", "calls, weights, fallback"),
    "steps": Box(370, 110, 260, "lowering/steps", "steps over buffers of 64 x 64 blocks"),
    "streams": Box(370, 200, 260, "lowering/streams", "headers, transfers per column and path"),
    "commands": Box(370, 290, 260, "lowering/commands", "order, then instruction words"),
    "program": Box(370, 400, 260, "lowering/host_data", "weights, inputs, results as blocks"),
    "kernels": Box(720, 110, 260, "kernels_xdna1/kernels", "the C++ of one core"),
    "overlay": Box(720, 200, 260, "lowering/overlay", "FIFOs, core program; MLIR, xclbin"),
    "emulator": Box(20, 510, 260, "torch_xdna/devices/emulator", "ops with the same roundings"),
    "array": Box(370, 510, 260, "torch_xdna/devices/array", "the simulator: executes the words"),
    "npu": Box(720, 510, 260, "torch_xdna/devices/npu", "hardware, through pyxrt"),
}
# from, to, what passes: straight down, or to the side between boxes of one row
ARROWS = (
    ("user", "capture", ""),
    ("capture", "matching", "fx.Graph"),
    ("matching", "partitioning", "MatchState"),
    ("partitioning", "execution", "Region, borders, weights"),
    ("execution", "emulator", "Region, tensors"),
    ("steps", "streams", "Step"),
    ("streams", "commands", "StepStreams"),
    ("commands", "program", "Program: words"),
    ("execution", "program", "tensors"),
    ("program", "array", "words, bytes"),
    ("kernels", "overlay", "C++"),
    ("overlay", "npu", "xclbin"),
)
# around corners: points, text, where it stands
BENDS = (
    (((280, 317), (325, 317), (325, 137), (370, 137)), "Region", (332, 230)),
    (((630, 427), (780, 427), (780, 510)), "words, bytes", (640, 420)),
    (((850, 485), (590, 485), (590, 510)), "description", (645, 479)),
)


def draw() -> str:
    """The picture as SVG text."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 590" font-family="sans-serif">',
        '<rect width="1000" height="590" fill="#ffffff"/>',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#666"/></marker></defs>',
    ]
    for start, end, what in ARROWS:
        parts += _arrow(BOXES[start], BOXES[end], what)
    for points, what, (x, y) in BENDS:
        parts += [_line(points), _text(x, y, what, 11)]
    for box in BOXES.values():
        parts += _box(box)
    parts.append(
        _text(
            370,
            40,
            "Once per graph: down to the words. At each call: execution to a device and back.",
            13,
        )
    )
    return "\n".join([*parts, "</svg>", ""])


def _box(box: Box) -> list[str]:
    fill = COLORS[box.folder.partition("/")[0]]
    title = box.folder or "torch"
    return [
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="#555"/>',
        _text(box.x + 10, box.y + 22, title, 14, "bold"),
        _text(box.x + 10, box.y + 42, box.does, 12),
    ]


def _arrow(start: Box, end: Box, what: str) -> list[str]:
    (x1, y1), (x2, y2) = start.middle, end.middle
    if y1 == y2:
        x1, x2 = start.x + start.width, end.x
        label = (x1 + 8, y1 - 6)
    else:
        y1, y2 = start.y + HEIGHT, end.y
        label = (x1 + 8, (y1 + y2) // 2 + 4)
    return [_line(((x1, y1), (x2, y2))), _text(*label, what, 11)]


def _line(points: tuple[tuple[int, int], ...]) -> str:
    shown = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{shown}" fill="none" stroke="#666" stroke-width="1.5" marker-end="url(#end)"/>'


def _text(x: int, y: int, text: str, size: int, weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="#222">{escape(text)}</text>'
    )


if __name__ == "__main__":
    print(draw(), end="")
