"""Trains the checkpoint.

    python -m torch_xdna.speech.training.train WORK --steps 5000 --decay-steps 1000

WORK holds corpus.npz (from .corpus). The learning rate is constant after a warm-up and falls linearly to zero
over the last `decay-steps`, so that a run can be resumed with another number of steps and equals a run that
had it from the start. Two losses on the encoder's output, whose heads are dropped afterwards, teach it speech
before attention has found it: the word spoken at each position, whose time espeak-ng tells, and CTC over
characters. Without the first one, both the decoder and CTC sat on what a language model alone can guess for
the first 300 steps.

Work is shared by processes of one thread each, which average their gradients once per step: on a machine that
also does other work this is nearly twice as fast as one process with as many threads, whose threads wait for
each other at every operator.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from torch import nn
from torch.nn import functional

from torch_xdna.speech.training import recipe
from torch_xdna.speech.training.batches import CHARACTERS, Batch, Batches
from torch_xdna.speech.training.corpus import load
from torch_xdna.speech.training.prompts import EARLIER
from torch_xdna.speech.training.sentences import vocabulary

CTC_WEIGHT = 0.3
FRAMES_WEIGHT = 1.0
LABEL_SMOOTHING = 0.05
WARM_UP_STEPS = 200
CLIP_NORM = 1.0


class Trainee(nn.Module):
    """The Whisper model and the two heads that only training needs; `words`: classes of frames; `hears`: whether the
    encoder has learnt all that it shall, so that only the decoder is trained."""

    whisper: Any  # mypy would have every submodule be a tensor or a module

    def __init__(self, whisper: nn.Module, words: int, hears: bool = False):
        super().__init__()
        self.whisper, self.hears = whisper, hears
        if hears:
            self.whisper.model.encoder.requires_grad_(False)
        self.frames = nn.Linear(self.whisper.config.d_model, words)
        self.ctc = nn.Linear(self.whisper.config.d_model, len(CHARACTERS) + 1)

    def encode(self, mels: torch.Tensor, first: int) -> torch.Tensor:
        """The Hugging Face encoder's forward, for any number of frames, its positions beginning at
        `first`.
        """
        encoder = self.whisper.model.encoder
        hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mels)))).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[first : first + hidden.shape[1]]
        hidden = functional.dropout(hidden, encoder.dropout, self.training)
        for layer in encoder.layers:
            out = layer(hidden, None)
            hidden = out[0] if isinstance(out, tuple) else out
        return encoder.layer_norm(hidden)

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cross-entropy of the decoder's tokens, CTC of characters (per character), cross-entropy of
        frames.
        """
        hidden = self.encode(batch.mels, batch.first)
        inputs = batch.tokens[:, :-1]
        decoded = self.whisper.model.decoder(input_ids=inputs, encoder_hidden_states=hidden, use_cache=False)
        logits = self.whisper.proj_out(decoded.last_hidden_state)
        labels = batch.tokens[:, 1:].masked_fill(~batch.learnt[:, 1:], -100)
        cross_entropy = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), label_smoothing=LABEL_SMOOTHING, ignore_index=-100
        )
        if self.hears:
            return cross_entropy, torch.zeros(()), torch.zeros(())
        log_probabilities = self.ctc(hidden).log_softmax(-1).transpose(0, 1)
        frames = torch.full((len(hidden),), hidden.shape[1])
        ctc = functional.ctc_loss(
            log_probabilities, batch.characters, frames, batch.character_lengths, zero_infinity=True
        )
        frames_loss = functional.cross_entropy(self.frames(hidden).flatten(0, 1), batch.frames.flatten())
        return cross_entropy, ctc, frames_loss


def learning_rate(step: int, *, peak: float, steps: int, decay_steps: int) -> float:
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS, (steps - step) / decay_steps)


def save(path: Path, **state) -> None:
    """Replaces the file at once, so that a run that dies while saving leaves the previous one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(rank: int, arguments: argparse.Namespace) -> None:
    """One process of `arguments.processes`."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{arguments.port}", rank=rank, world_size=arguments.processes
    )
    torch.manual_seed(arguments.seed)
    processor = recipe.processor(vocabulary(), recipe.STAGES[arguments.stage])
    whisper = recipe.model(
        processor.tokenizer,
        width=arguments.width,
        encoder_layers=arguments.encoder_layers,
        decoder_layers=arguments.decoder_layers,
        dropout=arguments.dropout,
    )
    if arguments.start:
        recipe.take_over(whisper, processor.tokenizer, arguments.start)
    batches = Batches(load(arguments.work / "corpus.npz"), processor, arguments.seed, arguments.earlier)
    trainee = Trainee(whisper, words=1 + len(batches.classes), hears=bool(arguments.start)).train()
    if rank == 0:
        print(f"{sum(p.numel() for p in whisper.parameters()) / 1e6:.2f} M parameters", flush=True)
    decay = [p for p in trainee.parameters() if p.ndim > 1 and p.requires_grad]
    rest = [p for p in trainee.parameters() if p.ndim <= 1 and p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    first, elapsed = 0, 0.0
    checkpoint = arguments.work / "checkpoint.pt"
    if arguments.resume:
        state = torch.load(arguments.resume, weights_only=False)
        trainee.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, elapsed = state["step"], state["seconds"]
    begin, sums = time.perf_counter() - elapsed, [0.0] * 4
    for step in range(first, arguments.steps):
        torch.manual_seed((arguments.seed * 1_000_003 + step) * arguments.processes + rank)
        rate = learning_rate(
            step, peak=arguments.rate, steps=arguments.steps, decay_steps=arguments.decay_steps
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        cross_entropy, ctc, frames = trainee.losses(batches(step, rank, arguments.kind))
        optimizer.zero_grad(set_to_none=True)
        (cross_entropy + CTC_WEIGHT * ctc + FRAMES_WEIGHT * frames).backward()
        average_gradients(trainee, arguments.processes)
        norm = nn.utils.clip_grad_norm_(trainee.parameters(), CLIP_NORM)
        optimizer.step()
        sums = [total + value.item() for total, value in zip(sums, (cross_entropy, ctc, frames, norm))]
        if rank:
            continue
        done = step + 1
        if done % arguments.log_steps == 0 or done == arguments.steps:
            seconds = time.perf_counter() - begin
            means = [total / arguments.log_steps for total in sums]
            text = "loss {:.3f} ctc {:.3f} frames {:.3f} norm {:.2f}".format(*means)
            print(f"{done} {seconds:.0f} s {text} rate {rate:.2e}", flush=True)
            sums = [0.0] * 4
        if done % arguments.save_steps == 0 or done == arguments.steps:
            seconds = time.perf_counter() - begin
            state = {"model": trainee.state_dict(), "optimizer": optimizer.state_dict()}
            save(checkpoint, step=done, seconds=seconds, stage=arguments.stage, **state)


def average_gradients(module: nn.Module, processes: int) -> None:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small Whisper of torch-xdna.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--decay-steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--stage", choices=list(recipe.STAGES), default="plain")
    parser.add_argument(
        "--start",
        type=Path,
        help="an exported folder whose weights to begin with; its encoder stays as it is",
    )
    parser.add_argument("--earlier", type=float, default=EARLIER, help="share of windows after earlier text")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--encoder-layers", type=int, default=3)
    parser.add_argument("--decoder-layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=["short", "packed", "single"], help="only this kind of batch")
    parser.add_argument("--log-steps", type=int, default=25)
    parser.add_argument("--save-steps", type=int, default=250)
    parser.add_argument("--resume", type=Path, help="a checkpoint.pt to go on from")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--port", type=int, default=29_517, help="for the processes to find each other")
    arguments = parser.parse_args()
    torch.multiprocessing.spawn(train, (arguments,), nprocs=arguments.processes)


if __name__ == "__main__":
    main()
