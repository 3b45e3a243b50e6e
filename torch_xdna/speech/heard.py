"""What is known of the language that one recording is spoken in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# How sure the model must be of another language before a file's windows change theirs. A window of noise, music or one
# word has no language, and what the model makes of it is a guess between many.
SURE = 0.8


@dataclass
class Heard:
    """What one file is spoken in. `seconds`: of its windows, by language, in the order of their appearance."""

    seconds: dict[str, float] = field(default_factory=dict)
    current: str | None = None
    chance: float = 0.0  # of the current language when it was taken

    def hear(self, chances: Mapping[str, float], seconds: float) -> str:
        """The language of the next window: the file's, until the model is sure of another or at least surer."""
        likeliest = max(chances, key=lambda code: chances[code])
        if self.current is None or chances[likeliest] >= min(SURE, self.chance):
            self.current, self.chance = likeliest, chances[likeliest]
        self.seconds[self.current] = self.seconds.get(self.current, 0.0) + seconds
        return self.current

    @property
    def most(self) -> str | None:
        """The language that most seconds are spoken in."""
        return max(self.seconds, key=lambda code: self.seconds[code], default=None)
