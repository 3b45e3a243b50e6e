"""A file's language over its windows, and languages by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from torch_xdna.errors import XdnaError
from torch_xdna.speech.languages import Heard
from torch_xdna.speech.vocabulary import Vocabulary, language_name


def heard(*chances: dict[str, float]) -> tuple[list[str], Heard]:
    file = Heard()
    return [file.hear(found, 10.0) for found in chances], file


def test_a_guess_does_not_change_a_files_language() -> None:
    codes, file = heard({"es": 0.9, "en": 0.1}, {"nn": 0.6, "es": 0.2}, {"es": 0.95})
    assert codes == ["es", "es", "es"] and file.seconds == {"es": 30.0}


def test_a_file_may_have_several_languages() -> None:
    codes, file = heard({"en": 0.96}, {"es": 0.99, "en": 0.01}, {"es": 0.7}, {"en": 0.9})
    assert codes == ["en", "es", "es", "en"] and list(file.seconds) == ["en", "es"] and file.most == "en"


def test_a_guess_at_the_beginning_gives_way() -> None:
    assert heard({"nn": 0.56, "en": 0.19}, {"en": 0.77}, {"nn": 0.5})[0] == ["nn", "en", "en"]


def multilingual(languages: tuple[str, ...], first: int = 100, tasks: bool = True) -> Vocabulary:
    names = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    names += ["<|translate|>", "<|transcribe|>"] if tasks else []
    tokens = {first + i: SimpleNamespace(content=name) for i, name in enumerate([*names, "<|notimestamps|>"])}
    tokenizer = SimpleNamespace(added_tokens_decoder=tokens, encode=lambda text, add_special_tokens: [1, 2])
    return Vocabulary.of(tokenizer, first + 2_000)


def test_languages_by_code_or_name_in_any_case() -> None:
    found = multilingual(("en", "es", "yue"))
    assert [found.language(name) for name in ("ES", "spanish", "Castilian", " Cantonese ")] == [
        "es", "es", "es", "yue",
    ]  # fmt: skip
    with pytest.raises(XdnaError, match=r"no language 'de'.*it knows 3: en, es, yue"):
        found.language("de")
    assert (language_name("es"), language_name("xx")) == ("Spanish (es)", "xx")


@pytest.mark.parametrize("english", [multilingual(("en", "es"), first=50_256), multilingual((), tasks=False)])
def test_english_only_by_gpt2s_vocabulary_or_for_want_of_tokens(english: Vocabulary) -> None:
    """OpenAI's English-only tokenizers list all languages and tasks too."""
    assert not english.is_multilingual and english.language("English") == "en"
    with pytest.raises(XdnaError, match="English only"):
        english.language("es")
