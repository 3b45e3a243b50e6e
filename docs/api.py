"""The API pages: public names with shapes, dtypes and errors, from their docstrings, as HTML by pdoc.

python docs/api.py FOLDER       # `make docs` builds them in docs/api
"""

from __future__ import annotations

import argparse
import html
import importlib
import inspect
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

# What a program outside of this repository may rely on; the rest may change without a word.
MODULES = (
    "torch_xdna",
    "torch_xdna.errors",
    "torch_xdna.devices",
    "torch_xdna.devices.base",
    "torch_xdna.devices.npu",
    "torch_xdna.speech",
    "torch_xdna.speech.audio",
    "torch_xdna.lowering",
    "torch_xdna.lowering.errors",
    "torch_xdna.lowering.evaluate",
    "torch_xdna.lowering.ops",
    "torch_xdna.lowering.program",
    "torch_xdna.lowering.whisper",
    "torch_xdna.kernels_xdna1.contract",
)


def names(module: ModuleType) -> list[str]:
    """The public names of a module: `__all__` and what it imports when used; else the classes, functions and
    constants that it defines."""
    listed = [*getattr(module, "__all__", ()), *getattr(module, "_EXPORTS", ())]
    return listed or [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", module.__name__) == module.__name__
        if inspect.isclass(value) or inspect.isfunction(value) or key.isupper()
    ]


def _complete(name: str) -> ModuleType:
    """A module of which pdoc sees all public names."""
    module = importlib.import_module(name)
    module.__all__ = names(module)  # type: ignore[attr-defined]
    for key in names(module):
        setattr(module, key, getattr(module, key))
    return module


def build(folder: Path) -> list[Path]:
    """Write the pages; returns them. Raises UserWarning, with pdoc's sentence, for what does not resolve."""
    from pdoc import doc, render

    render.configure(docformat="markdown", show_source=False, footer_text="torch-xdna")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        modules = {name: doc.Module(_complete(name)) for name in MODULES}
        pages = {folder / f"{name.replace('.', '/')}.html": render.html_module(module, modules)
                 for name, module in modules.items()}  # fmt: skip
        pages[folder / "index.html"] = _index(modules)
        pages[folder / "search.js"] = render.search_index(modules)
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return sorted(pages)


def _index(modules: dict[str, Any]) -> str:
    """A list of all pages: of one package pdoc's own index would show the first page only."""
    rows = (
        f'<li><a href="{name.replace(".", "/")}.html">{name}</a>: '
        f"{html.escape(module.docstring.partition(chr(10))[0])}</li>"
        for name, module in modules.items()
    )
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>torch-xdna</title></head>'
    return f"{head}<body><h1>torch-xdna</h1><ul>{''.join(rows)}</ul></body></html>\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python docs/api.py", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pages go")
    pages = build(parser.parse_args().folder)
    print(f"{len(pages)} files, begin with {pages[0].parent / 'index.html'}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
