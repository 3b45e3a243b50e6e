"""Writes WORK/checkpoint.pt as a Hugging Face folder with fp16 weights.

    python -m torch_xdna.speech.training.export WORK FOLDER

config.json says float32, hence `from_pretrained` widens the weights when it loads them: fp16 is only how they
travel.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from torch_xdna.speech.training import recipe
from torch_xdna.speech.training.alignment import alignment_heads
from torch_xdna.speech.training.corpus import synthesise
from torch_xdna.speech.training.prompts import knows_tasks
from torch_xdna.speech.training.sentences import vocabulary

ALIGNED, SEED = 100, 97  # clips of the training sentences by which the decoder's alignment heads are chosen


def export(checkpoint: Path, folder: Path) -> None:
    loaded = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
    state = loaded["model"]
    prefix = "whisper."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    layers = {
        part: 1 + max(int(name.split(".")[3]) for name in weights if name.startswith(f"model.{part}.layers."))
        for part in ("encoder", "decoder")
    }
    processor = recipe.processor(vocabulary(), recipe.STAGES[loaded.get("stage", "plain")])
    model = recipe.model(
        processor.tokenizer,
        width=weights["model.decoder.embed_tokens.weight"].shape[1],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        dropout=0.0,
    )
    model.load_state_dict(weights)
    if knows_tasks(processor.tokenizer):
        heads, error = alignment_heads(model.eval(), processor, synthesise(ALIGNED, SEED, held_out=False))
        generation: Any = model.generation_config
        generation.alignment_heads = heads
        print(f"words begin {1000 * error:.0f} ms off on average, by the best of the heads {heads}")
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)  # in the file where other programs look for it, too
    (folder / "model.safetensors").chmod(0o644)
    config = folder / "config.json"
    settings = json.loads(config.read_text())
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a training checkpoint as a Hugging Face folder.")
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    export(arguments.work / "checkpoint.pt", arguments.folder)
    size = (arguments.folder / "model.safetensors").stat().st_size
    print(f"{arguments.folder}: {size / 1e6:.2f} MB of weights")


if __name__ == "__main__":
    main()
