"""CTC recognition: words, times and confidence are right, and padding does not change them."""

from pathlib import Path

import numpy as np
import pytest
from transformers import Wav2Vec2CTCTokenizer

from shards.asr.ctc import read_tokens
from shards.asr.load import load

SOUNDS = ([("AB", 0.3), ("CDA", 0.9)], 1.5), ([("D", 0.2)], 0.6), ([("BCD", 0.25), ("A", 0.9), ("DB", 1.4)], 2.0)


@pytest.fixture
def tokenizer(tone_model: Path) -> Wav2Vec2CTCTokenizer:
    return Wav2Vec2CTCTokenizer.from_pretrained(tone_model)


@pytest.mark.slow
def test_words_have_the_times_at_which_they_were_spoken(tone_model: Path, spoken) -> None:
    recogniser = load(str(tone_model), None, "cpu", "auto", None).recogniser
    heard = recogniser.hear([spoken(words, seconds, 50 + index) for index, (words, seconds) in enumerate(SOUNDS)])
    for said, (words, _) in zip(heard, SOUNDS, strict=True):
        assert [word.text for word in said.words] == [text.lower() for text, _ in words]
        for word, (text, start_s) in zip(said.words, words, strict=True):
            assert word.start_s == pytest.approx(start_s, abs=0.03)  # a step is 0.02 s
            assert word.end_s == pytest.approx(start_s + 0.12 * len(text), abs=0.03)
            assert word.confidence is not None
            assert 0.8 < word.confidence <= 1
        assert said.num_tokens == sum(len(text) for text, _ in words)


def test_the_longer_clips_of_a_batch_do_not_change_what_is_heard(tone_model: Path, spoken) -> None:
    recogniser = load(str(tone_model), None, "cpu", "auto", None).recogniser
    sounds = [spoken(words, seconds, 9) for words, seconds in SOUNDS]
    for together, sound in zip(recogniser.hear(sounds), sounds, strict=True):
        (alone,) = recogniser.hear([sound])
        assert [(word.text, word.start_s, word.end_s) for word in together.words] == [
            (word.text, word.start_s, word.end_s) for word in alone.words
        ]
        assert together.log_probability == pytest.approx(alone.log_probability, abs=1e-4)


def test_a_group_norm_batches_only_clips_of_equal_length(group_model: Path, tone_model: Path) -> None:
    assert load(str(group_model), None, "cpu", "auto", None).recogniser.only_equal
    assert not load(str(tone_model), None, "cpu", "auto", None).recogniser.only_equal


def test_confidence_is_the_mean_of_the_tokens_and_a_token_the_mean_of_its_steps(tokenizer) -> None:
    ids = tokenizer.convert_tokens_to_ids(["|", "A", "A", "<pad>", "A", "|", "<pad>", "B", "<unk>"])
    logs = np.log([0.9, 0.25, 0.25, 0.9, 1.0, 0.9, 0.9, 0.5, 0.1])
    heard = read_tokens(np.array(ids), logs, tokenizer, 0.02)
    assert [(word.text, word.start_s, word.end_s) for word in heard.words] == [
        ("aa", 0.02, pytest.approx(0.1)),
        ("b", pytest.approx(0.14), pytest.approx(0.16)),
    ]
    assert [word.confidence for word in heard.words] == [pytest.approx(0.625), pytest.approx(0.5)]
    assert (heard.num_tokens, heard.log_probability) == (3, pytest.approx(np.log(0.25) + np.log(0.5)))


def test_blanks_alone_are_no_words(tokenizer) -> None:
    ids = np.array(tokenizer.convert_tokens_to_ids(["<pad>", "|", "<pad>", "<unk>"]))
    assert read_tokens(ids, np.zeros(4), tokenizer, 0.02).words == ()
    assert read_tokens(ids[:0], np.zeros(0), tokenizer, 0.02).words == ()
