"""The training recipe: the task, the tokenizer, the batches. None of these needs espeak-ng."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from torch_xdna.speech.training import batches, recipe, sentences
from torch_xdna.speech.training.corpus import HELD_OUT_VOICES, VARIANTS, Corpus
from torch_xdna.speech.training.train import Trainee, learning_rate


@pytest.fixture(scope="module")
def processor():
    return recipe.processor(sentences.vocabulary())


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Noise instead of speech, one word per 0.3 s."""
    rng = random.Random(0)
    texts = [sentences.sentence(rng) for _ in range(50)]
    lengths = [int(0.3 * 16_000) * len(text.split()) for text in texts]
    samples = np.random.default_rng(0).integers(-9_000, 9_000, sum(lengths)).astype(np.int16)
    starts = np.concatenate([0.3 * np.arange(len(text.split())) for text in texts]).astype(np.float32)
    words = [len(text.split()) for text in texts]
    offsets, word_offsets = (np.concatenate([[0], np.cumsum(counts)]) for counts in (lengths, words))
    return Corpus(samples, offsets, texts, starts, word_offsets, ["none"] * 50)


def test_the_task_has_more_than_200_words_and_every_sentence_is_made_of_them() -> None:
    words = set(sentences.vocabulary())
    assert len(words) >= 200
    rng = random.Random(1)
    spoken = {word for _ in range(5_000) for word in sentences.sentence(rng).split()}
    assert spoken == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "zero"),
        (21, "twenty one"),
        (40, "forty"),
        (100, "one hundred"),
        (2107, "two thousand one hundred and seven"),
        (9010, "nine thousand and ten"),
        (3000, "three thousand"),
    ],
)
def test_numbers(value: int, text: str) -> None:
    assert sentences.number_words(value) == text


def test_about_a_tenth_of_the_sentences_is_held_out() -> None:
    rng = random.Random(2)
    texts = {sentences.sentence(rng) for _ in range(4_000)}
    assert 0.08 < sum(map(sentences.is_held_out, texts)) / len(texts) < 0.12


def test_held_out_voices_are_not_trained_on() -> None:
    assert not {voice.split("+")[1] for voice in HELD_OUT_VOICES} & set(VARIANTS)


def test_every_word_is_one_token_and_any_text_survives(processor) -> None:
    tokenizer = processor.tokenizer
    for word in sentences.vocabulary():
        assert len(tokenizer(f" {word}", add_special_tokens=False).input_ids) == 1
    text = " Çöffee & naïve 123?"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_ids_are_where_whisper_expects_them(processor) -> None:
    silent, zero, last = processor.tokenizer.convert_tokens_to_ids(
        ["<|notimestamps|>", "<|0.00|>", "<|10.00|>"]
    )
    assert zero == silent + 1 and last == silent + 501 == len(processor.tokenizer) - 1


def test_log_mels_are_the_feature_extractors(processor, corpus: Corpus) -> None:
    padded = torch.zeros(1, 160_000)
    clip = corpus.clip(3)
    padded[0, : len(clip)] = torch.from_numpy(clip)
    filters = torch.from_numpy(processor.feature_extractor.mel_filters).float()
    expected = processor.feature_extractor(clip, sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(batches.log_mels(padded, filters), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", list(batches.SIZES))
def test_batches_are_a_function_of_seed_step_and_rank(processor, corpus: Corpus, kind: str) -> None:
    make = batches.Batches(corpus, processor, seed=5)
    one, same = make(7, 1, kind), batches.Batches(corpus, processor, seed=5)(7, 1, kind)
    assert torch.equal(one.mels, same.mels) and torch.equal(one.tokens, same.tokens)
    other = make(7, 0, kind)
    assert one.mels.shape != other.mels.shape or not torch.equal(one.mels, other.mels)


def test_labels_say_what_is_heard_and_when(processor, corpus: Corpus) -> None:
    make = batches.Batches(corpus, processor, seed=5)
    known = set(corpus.texts)
    for step in range(6):
        batch = make(step, 0, "short")
        for row, characters in zip(batch.tokens, batch.characters):
            ids = [int(i) for i in row if i >= 0]
            text = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
            spelt = "".join((" " + batches.CHARACTERS)[i] for i in characters).strip()
            times = [i - make.zero for i in ids if i >= make.zero]
            assert ids[0] == make.start and ids[-1] == make.end
            assert text in known and text == spelt
            if times:
                seconds = recipe.POSITION_SECONDS * (times[1] - times[0])
                assert seconds == pytest.approx(0.3 * len(text.split()), abs=0.11)
                assert times[0] * recipe.POSITION_SECONDS >= batch.first * recipe.POSITION_SECONDS - 0.06
            else:
                assert ids[1] == make.silent


def test_the_trainees_encoder_is_the_librarys(processor) -> None:
    torch.manual_seed(0)
    whisper = recipe.model(
        processor.tokenizer, width=64, encoder_layers=1, decoder_layers=1, dropout=0.0
    ).eval()
    mels = torch.randn(1, 80, 1_000)
    with torch.no_grad():
        expected = whisper.model.encoder(mels).last_hidden_state
        torch.testing.assert_close(Trainee(whisper, words=3).encode(mels, 0), expected)


def test_the_learning_rate_warms_up_holds_and_falls() -> None:
    rates = [learning_rate(step, peak=1.0, steps=3_000, decay_steps=1_000) for step in range(3_000)]
    assert rates[0] == pytest.approx(0.005) and rates[199] == rates[1_999] == 1.0
    assert rates[2_500] == pytest.approx(0.5) and 0 < rates[2_999] < 0.002
