"""`make demo`: the shipped clips through the Hugging Face pipeline, with the encoder compiled for this package."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = 6  # clips; every one is a sentence and every other a voice that training never heard


def main() -> int:
    """Transcribe some clips on the default device, print what was said beside it; 1 if more than one is wrong."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline
    from transformers.utils import logging

    import torch_xdna
    from torch_xdna import speech
    from torch_xdna.speech import audio
    from torch_xdna.switches import switched_off

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    console = Console()
    warnings.showwarning = lambda message, *_: console.print(f"[yellow]{message}[/yellow]")

    if off := switched_off():
        console.print(f"[yellow]the encoder runs eager on the CPU, because {off}[/yellow]")
    model = WhisperForConditionalGeneration.from_pretrained(speech.CHECKPOINT, dtype=torch.float32).eval()
    model.model.encoder.compile(backend="xdna")
    processor = WhisperProcessor.from_pretrained(speech.CHECKPOINT)
    asr: Any = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    clips = speech.clips()[:SHOWN]
    start = time.perf_counter()
    # Samples, not file names: those the pipeline gives to the ffmpeg program, which not every machine has.
    heard = [asr(audio.read(clip.path, 16_000))["text"].strip() for clip in clips]
    seconds = time.perf_counter() - start

    table = Table("clip", "heard", "said", "", box=None)
    for clip, text in zip(clips, heard):
        mark = "[green]ok[/green]" if text == clip.text else "[red]differs[/red]"
        table.add_row(clip.path.rsplit("/", 1)[-1], text, clip.text, mark)
    console.print(table)
    for report in torch_xdna.reports():
        devices = ", ".join(sorted({graph.device for graph in report.graphs}))
        console.print(f"{report.summary()}, on device '{devices}'")
    console.print(
        f"{sum(clip.seconds for clip in clips):.0f} s of speech in {seconds:.1f} s here, compiling included"
    )
    return int(sum(text != clip.text for clip, text in zip(clips, heard)) > 1)


if __name__ == "__main__":
    sys.exit(main())
