"""A Whisper encoder without torch.compile: weights from files, mel spectrograms and hidden states as numpy arrays.

    encoder = Encoder.from_ct2("faster-whisper-base", device="npu")
    hidden = encoder(mel)        # (clips, mel bins, frames) -> (clips, frames / 2, width), float32

`ct2` reads CTranslate2's model.bin, `weights` names what is in it as the region of the encoder does, `doors` are the
devices as numpy sees them, `encoder` puts them together. No torch here except where the emulator is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_xdna.encoder.encoder import Encoder

__all__ = ["Encoder"]


def __getattr__(name: str) -> Any:
    if name != "Encoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch_xdna.encoder.encoder import Encoder

    return Encoder
