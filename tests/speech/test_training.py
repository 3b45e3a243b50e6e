"""The training recipe: the task, the tokenizer, the batches. None of these needs espeak-ng."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from torch_xdna.speech.training import batches, recipe, sentences
from torch_xdna.speech.training.corpus import HELD_OUT_VOICES, VARIANTS, Corpus
from torch_xdna.speech.training.prompts import SPOKEN, prompts
from torch_xdna.speech.training.train import Trainee, learning_rate


@pytest.fixture(scope="module", params=list(recipe.STAGES))
def processor(request: pytest.FixtureRequest):
    return recipe.processor(sentences.vocabulary(), recipe.STAGES[request.param])


def ids_of(processor, *names: str) -> list[int]:
    return processor.tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])


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
    start, silent, end, zero = ids_of(processor, "startoftranscript", "notimestamps", "endoftext", "0.00")
    spoken = 0
    for step in range(12):
        batch = make(step, 0, "short")
        for row, learnt, characters in zip(batch.tokens.tolist(), batch.learnt.tolist(), batch.characters):
            ids = row[row.index(start) : 1 + max(i for i, is_learnt in enumerate(learnt) if is_learnt)]
            text = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
            spelt = "".join((" " + batches.CHARACTERS)[i] for i in characters).strip()
            assert ids[-1] == end and text == spelt
            times = [i - zero for i in ids if i >= zero]
            if not text:  # nobody speaks
                assert len(times) <= 1
                continue
            spoken += 1
            assert text in known
            if times:
                seconds = recipe.POSITION_SECONDS * (times[1] - times[0])
                assert seconds == pytest.approx(0.3 * len(text.split()), abs=0.11)
                assert times[0] * recipe.POSITION_SECONDS >= batch.first * recipe.POSITION_SECONDS - 0.06
            else:
                assert silent in ids
    assert spoken > 80


def test_nothing_is_heard_in_windows_that_are_labelled_silent(corpus: Corpus) -> None:
    """And something in all others: noise without words must not carry the label of the speech that it replaced."""
    make = batches.Batches(corpus, recipe.processor(["one"], recipe.STAGES["whisper"]), seed=5)
    make.noise = [np.zeros_like(bank) for bank in make.noise]
    silent = 0
    for step in range(20):
        batch = make(step, 0, "short")
        for mels, words in zip(batch.mels, batch.character_lengths.tolist()):
            assert (mels.std(dim=1).max() < 1e-3) == (words == 0)  # over time, for every mel
            silent += words == 0
    assert 0 < silent < 40


def test_all_ways_of_asking_are_trained(corpus: Corpus) -> None:
    """And nothing is learnt of what programs give: earlier text, tasks that they choose, <|notimestamps|>."""
    processor = recipe.processor(sentences.vocabulary(), recipe.STAGES["whisper"])
    ask, rng = prompts(processor.tokenizer, corpus.texts), random.Random(0)
    start, previous, silent = ids_of(processor, "startoftranscript", "startofprev", "notimestamps")
    spoken, transcribe, translate = ids_of(processor, SPOKEN, "transcribe", "translate")
    nobody = ids_of(processor, "nospeech")[0]
    seen, longest = set(), 0
    for number in range(2_000):
        segments = [] if number % 10 == 0 else [(0.5, 2.0, corpus.texts[number % 50])]
        label = ask(rng, segments, 0.0)
        at = label.ids.index(start)
        assert not any(label.learnt[: at + 1])
        assert (at > 0) == (label.ids[0] == previous)
        longest = max(longest, len(label.ids))
        assert all(not learnt for i, learnt in zip(label.ids, label.learnt) if i in (silent, translate))
        first = next(i for i, learnt in zip(label.ids[at + 1 :], label.learnt[at + 1 :]) if learnt)
        assert segments or first in (nobody, label.ids[-1])
        seen.add(tuple(i for i in label.ids[at + 1 : at + 3] if i in (spoken, transcribe, translate)))
        if segments and label.learnt[at + 1] and label.ids[at + 1] < silent:
            assert label.ids[at + 1] == spoken or label.ids[at + 1] < start
    assert {(spoken, transcribe), (spoken, translate), (spoken,), ()} <= seen
    assert 223 < longest <= recipe.STAGES["whisper"].target_positions


def test_a_stage_takes_over_the_rows_that_it_knows_by_name(tmp_path) -> None:
    def fresh(stage: str):
        processor = recipe.processor(sentences.vocabulary(), recipe.STAGES[stage])
        sizes = {"width": 64, "encoder_layers": 1, "decoder_layers": 1}
        return processor, recipe.model(processor.tokenizer, **sizes, dropout=0.0)

    torch.manual_seed(0)
    known, plain = fresh("plain")
    plain.save_pretrained(tmp_path)
    known.save_pretrained(tmp_path)
    processor, model = fresh("whisper")
    recipe.take_over(model, processor.tokenizer, tmp_path)
    before, after = (m.model.decoder.embed_tokens.weight for m in (plain, model))
    for name in ("<|startoftranscript|>", "<|notimestamps|>", "<|3.20|>", "\u0120lights"):
        assert torch.equal(
            after[processor.tokenizer.convert_tokens_to_ids(name)],
            before[known.tokenizer.convert_tokens_to_ids(name)],
        )
    old, new = (m.model.decoder.embed_positions.weight for m in (plain, model))
    assert torch.equal(new[: len(old)], old) and len(new) == 448
    assert after[ids_of(processor, "haw")[0]].abs().max() < 0.2
    assert torch.equal(model.proj_out.weight, after)


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
