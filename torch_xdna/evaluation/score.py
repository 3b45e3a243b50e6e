"""Word error rates after Whisper's own normalisation of texts (openai/whisper, whisper/normalizers).

English: lower case, no punctuation, numbers and spellings made equal; other languages: lower case and no punctuation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_xdna.errors import XdnaError


@dataclass(frozen=True)
class Errors:
    """Of all texts together. `words`: of the references."""

    words: int
    substituted: int
    deleted: int
    inserted: int

    @property
    def rate(self) -> float:
        """Word error rate; 0 where nothing is said and nothing was written."""
        wrong = self.substituted + self.deleted + self.inserted
        return wrong / self.words if self.words else float(wrong > 0)


def normalizer(language: str) -> Callable[[str], str]:
    """`language`: code. Raises XdnaError without the extra."""
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise XdnaError(
            f"texts can't be normalised ({error}): pip install '.[evaluate]' in the checkout"
        ) from error
    return EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()


def errors(references: Sequence[str], hypotheses: Sequence[str]) -> Errors:
    """Of normalised texts, one pair after another. Raises XdnaError without the extra."""
    try:
        import jiwer
    except ImportError as error:
        raise XdnaError(
            f"words can't be counted ({error}): pip install '.[evaluate]' in the checkout"
        ) from error
    words = substituted = deleted = inserted = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        if not reference.split():  # jiwer takes none such
            inserted += len(hypothesis.split())
            continue
        found = jiwer.process_words(reference, hypothesis)
        words += found.hits + found.substitutions + found.deletions
        substituted += found.substitutions
        deleted += found.deletions
        inserted += found.insertions
    return Errors(words, substituted, deleted, inserted)
