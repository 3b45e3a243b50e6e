"""The overlay as a picture (SVG), drawn from its description: tiles, FIFOs with their depths, memory in use.

`lowering/overlay.svg` is `python -m torch_xdna.lowering.overlay --svg`; a test compares them.
"""

from __future__ import annotations

from html import escape

from torch_xdna.lowering import limits
from torch_xdna.lowering.overlay.description import ROWS, Fifo, Overlay, Tile, memory_use

COLORS = {"A": "#2468b4", "B": "#c2571a", "C": "#2d8a4e"}
MEANINGS = {
    "A": "A: activations and headers, memtile to the cores of a row",
    "B": "B: weights, keys and values, blocks of row ops; memtile to the cores of a column",
    "C": "C: results, joined from the cores of a column",
}
# Pixels
PITCH_X, PITCH_Y, WIDTH, HEIGHT, LEFT, TOP = 230, 104, 154, 66, 70, 64
GAP = 46  # between the cores and the memtiles, the memtiles and the shims, the shims and the memory


def draw(overlay: Overlay) -> str:
    """The picture as SVG text."""
    width = LEFT + overlay.columns * PITCH_X
    bottom = _top(Tile(0, 0)) + HEIGHT + GAP
    height = bottom + 64 + 20 * len(MEANINGS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f"<defs>{''.join(_arrow(path) for path in COLORS)}</defs>",
        _text(LEFT, 28, f"The overlay: {len(overlay.cores)} cores, {overlay.columns} columns", 17, "bold"),
    ]
    for fifo in overlay.fifos:
        parts += _fifo(fifo)
    parts += [line for tile in overlay.tiles for line in _tile(overlay, tile)]
    parts += [
        f'<rect x="{LEFT - 30}" y="{bottom}" width="{width - LEFT}" height="30" rx="6" fill="#ececec" stroke="#555"/>',
        _text(
            LEFT - 14,
            bottom + 20,
            "device memory: argument 0 weights and headers, argument 1 activations",
            13,
        ),
    ]
    for i, (path, meaning) in enumerate(MEANINGS.items()):
        y = bottom + 56 + 20 * i
        parts.append(_path(path, [(LEFT - 30, y - 4), (LEFT + 4, y - 4)]))
        parts.append(_text(LEFT + 14, y, meaning, 13))
    return "\n".join([*parts, "</svg>", ""])


def _left(tile: Tile) -> int:
    return LEFT + tile.column * PITCH_X


def _top(tile: Tile) -> int:
    """Cores are drawn with row 0 nearest to the memtile, as on the chip."""
    if tile.kind == "core":
        return TOP + (ROWS + 1 - tile.row) * PITCH_Y
    cores = TOP + ROWS * PITCH_Y - (PITCH_Y - HEIGHT)
    return cores + GAP + (1 - tile.row) * (HEIGHT + GAP)


def _tile(overlay: Overlay, tile: Tile) -> list[str]:
    x, y = _left(tile), _top(tile)
    fill = {"core": "#f4f7fc", "memtile": "#fdf8ec", "shim": "#f3f3f3"}[tile.kind]
    title = f"core {tile.row - 2},{tile.column}" if tile.kind == "core" else str(tile)
    lines = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="#555"/>']
    lines.append(_text(x + 10, y + 19, title, 13, "bold"))
    use = memory_use(overlay, tile)
    if tile.kind == "shim":
        lines.append(_text(x + 10, y + 38, "MM2S 0: A   MM2S 1: B", 11))
        lines.append(_text(x + 10, y + 54, "S2MM 0: C", 11))
        return lines
    limit = limits.CORE_MEMORY if tile.kind == "core" else limits.MEMTILE_MEMORY
    buffers = sorted((f for f in overlay.fifos if f.name in use), key=lambda f: f.path)
    depths = "  ".join(f"{f.path} {f.depth} x {f.object_bytes // 1024}" for f in buffers)
    lines.append(_text(x + 10, y + 38, f"{depths} KB", 10))
    lines.append(
        _text(x + 10, y + 54, f"{sum(use.values()) / 1024:.1f} of {limit.maximum // 1024} KB used", 11)
    )
    return lines


def _fifo(fifo: Fifo) -> list[str]:
    """A at a quarter of a tile's width, B at a half, C at three quarters; A to the cores runs between the rows."""
    place = {"A": WIDTH // 4, "B": WIDTH // 2, "C": 3 * WIDTH // 4}[fifo.path]
    source = fifo.source
    if source.kind == "memtile" and fifo.path == "A":
        return _row(fifo)
    x = _left(source) + place
    ends = {source.row, *(t.row for t in fifo.targets)}
    if source.kind == "memtile" and fifo.path == "B":
        side = _left(source) - 12  # a rail beside the cores, one branch into each
        bend = _top(source) - GAP // 3
        highest = min(_top(t) for t in fifo.targets) + HEIGHT // 2
        rail = [(x, _top(source)), (x, bend), (side, bend), (side, highest)]
        branches = [[(side, _top(t) + HEIGHT // 2), (_left(t), _top(t) + HEIGHT // 2)] for t in fifo.targets]
        return [_path("B", rail, arrow=False), *(_path("B", b) for b in branches)]
    if source.kind == "core":
        target = fifo.targets[0]
        side = _left(source) + WIDTH + 12
        bend = _top(target) - GAP // 3
        y = _top(source) + HEIGHT // 2
        corner = _left(target) + place
        return [
            _path(
                "C",
                [(_left(source) + WIDTH, y), (side, y), (side, bend), (corner, bend), (corner, _top(target))],
            )
        ]
    upper, lower = Tile(source.column, max(ends)), Tile(source.column, min(ends))
    points = [(x, _top(upper) + HEIGHT), (x, _top(lower))]
    memory = Tile(source.column, 0)
    link = [(x, _top(memory) + HEIGHT), (x, _top(memory) + HEIGHT + GAP)]
    return [_path(fifo.path, p if fifo.path == "C" else p[::-1]) for p in (points, link)]


def _row(fifo: Fifo) -> list[str]:
    """From the memtile up the gutter to its left, then above the cores of the row with a branch into each."""
    source = fifo.source
    number = fifo.targets[0].row - 2
    start = _left(source) + WIDTH // 4
    gutter = _left(source) - 26 - 5 * (number % 2)
    bend = _top(source) - 2 * GAP // 3
    bus = _top(fifo.targets[0]) - 14
    xs = [_left(t) + WIDTH // 4 for t in fifo.targets]
    lines = [_path("A", [(start, _top(source)), (start, bend), (gutter, bend), (gutter, bus)], arrow=False)]
    lines.append(_path("A", [(min(gutter, *xs), bus), (max(gutter, *xs), bus)], arrow=False))
    return lines + [_path("A", [(x, bus), (x, bus + 14)]) for x in xs]


def _path(path: str, points: list[tuple[int, int]], arrow: bool = True) -> str:
    d = "M" + " L".join(f"{x} {y}" for x, y in points)
    end = f' marker-end="url(#{path})"' if arrow else ""
    return f'<path d="{d}" fill="none" stroke="{COLORS[path]}" stroke-width="2"{end}/>'


def _arrow(path: str) -> str:
    return (
        f'<marker id="{path}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{COLORS[path]}"/></marker>'
    )


def _text(x: int, y: int, text: str, size: int, weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="#222">{escape(text)}</text>'
    )
