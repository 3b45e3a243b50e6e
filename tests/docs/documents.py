"""What the documents ask a reader to type: commands and Python, from code blocks and from `spans` in the text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = {".venv", ".git", "build"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_COMMENT = re.compile(r"\s+#.*")
# What begins a command; a variable's setting does if a command follows it.
_COMMAND = re.compile(
    r"([A-Z_]+=\S+ )*(torch-xdna|python[\d.]*|make|pip|pytest|git|docker|curl|sudo|apt|export|\.venv/bin/\S+)\s"
)
_PYTHON = re.compile(r"(print\(|torch\.|torch_xdna\.|\w+\.encoder\b)")


def documents() -> list[Path]:
    found = ROOT.rglob("*.md")
    return sorted(path for path in found if not LEFT_OUT & set(path.relative_to(ROOT).parts))


def python_blocks() -> Iterator[str]:
    for path in documents():
        yield from (code for language, code in _FENCE.findall(path.read_text()) if language == "python")


def unknown_blocks() -> Iterator[str]:
    """Fenced blocks that are neither Python nor commands: nobody would run them."""
    for path in documents():
        for language, code in _FENCE.findall(path.read_text()):
            if language != "python" and not all(_COMMAND.match(line) for line in _lines(code)):
                yield f"{path.name}: {code}"


def commands() -> list[str]:
    """Each once, without comments, lines that go on joined."""
    found: dict[str, None] = {}
    for path in documents():
        text = path.read_text()
        blocks = [code for language, code in _FENCE.findall(text) if language != "python"]
        rest = _FENCE.sub("", text)
        blocks += _INDENTED.findall(rest)
        lines = [line for block in blocks for line in _lines(block)]
        lines += [span.replace("\\|", "|") for span in _SPAN.findall(_INDENTED.sub("", rest))]
        found.update({" ".join(line.split()): None for line in lines if _COMMAND.match(line + " ")})
    return list(found)


def python_spans() -> list[str]:
    """Statements in the text that call something."""
    found: dict[str, None] = {}
    for path in documents():
        for span in _SPAN.findall(_FENCE.sub("", path.read_text())):
            if _PYTHON.match(span) and _calls(span):
                found[span] = None
    return list(found)


def links() -> Iterator[tuple[Path, Path]]:
    """(document, file that it links to)."""
    for path in documents():
        for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)", path.read_text()):
            if target and "://" not in target:
                yield path, path.parent / target


def headings(path: Path) -> set[str]:
    """What a link behind `#` can name: GitHub's form of the document's headings."""
    found = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def fragments() -> Iterator[tuple[Path, Path, str]]:
    """(document, document that it links to, heading)."""
    for path in documents():
        for target, heading in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", path.read_text()):
            if "://" not in target:
                yield path, path.parent / target if target else path, heading


def _lines(block: str) -> list[str]:
    lines = (line.strip() for line in block.replace("\\\n", " ").splitlines())
    return [_COMMENT.sub("", line) for line in lines if line and not line.startswith("#")]


def _calls(span: str) -> bool:
    try:
        return any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(span)))
    except SyntaxError:
        return False
