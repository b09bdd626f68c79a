"""Recognition with Whisper: text, language, times and confidence."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from shards.asr.load import load
from shards.asr.recogniser import most_likely
from shards.asr.whisper import token_times, without_lead
from shards.record import Word


@pytest.fixture
def recogniser(whisper_model: Path):
    return load(str(whisper_model), None, "cpu", "auto", None).recogniser


def test_it_writes_what_was_learnt_with_its_language(recogniser, lessons) -> None:
    heard = recogniser.hear([sound for *_, sound in lessons])
    assert [[word.text for word in said.words] for said in heard] == [
        ["ab", "cda"],
        ["da", "b"],
        ["b", "b"],
        [],
    ]  # Chinese has no spaces
    assert [most_likely(said.languages) for said in heard[:3]] == ["en", "de", "zh"]
    for said, (*_, sound) in zip(heard, lessons, strict=True):
        assert sum(said.languages.values()) == pytest.approx(1)
        for word in said.words:
            assert word.confidence is not None
            assert 0.5 < word.confidence <= 1
            assert 0 <= word.start_s <= word.end_s <= len(sound) / 16000
        starts = [word.start_s for word in said.words]
        assert starts == sorted(starts)


def test_a_window_is_heard_the_same_alone_and_in_a_batch(recogniser, lessons) -> None:
    sounds = [sound for *_, sound in lessons]
    for together, sound in zip(recogniser.hear(sounds), sounds, strict=True):
        (alone,) = recogniser.hear([sound])
        assert [(word.text, word.start_s) for word in together.words] == [
            (word.text, word.start_s) for word in alone.words
        ]
        assert together.log_probability == pytest.approx(alone.log_probability, abs=1e-3)


def test_the_language_to_write_can_be_given_and_the_one_heard_is_still_told(whisper_model: Path, lessons) -> None:
    forced = load(str(whisper_model), None, "cpu", "auto", "de").recogniser
    (said,) = forced.hear([lessons[0][2]])
    assert most_likely(said.languages) == "en"
    assert [word.text for word in said.words] == ["dd"]


def test_a_word_without_end_is_not_believed(recogniser) -> None:
    text = recogniser.tokenizer.convert_tokens_to_ids(["Ġ", "a", "h"]) * 60
    opening = SimpleNamespace(languages={"en": 1.0}, no_speech=0.0)
    said = recogniser._heard(opening, "en", text, [0.0] * (len(text) + 1), [-0.01] * len(text))
    assert said.words == ()
    assert said.failed is not None


@pytest.mark.parametrize(("no_speech", "log", "words"), [(0.9, -2.0, 0), (0.9, -0.1, 1), (0.1, -2.0, 1)])
def test_unlikely_words_where_nobody_speaks_are_dropped(recogniser, no_speech: float, log: float, words: int) -> None:
    text = recogniser.tokenizer.convert_tokens_to_ids(["Ġ", "o", "h"])
    opening = SimpleNamespace(languages={"en": 1.0}, no_speech=no_speech)
    assert len(recogniser._heard(opening, "en", text, [0.0, 0.1, 0.2, 0.3], [log] * 3).words) == words


def test_a_token_lasts_while_the_position_before_it_is_attended_to(recogniser) -> None:
    """A prompt of 4 and a text of 3: its tokens are heard in frames 0-9, 10-29 and 30-39, and then comes the end."""
    spans = [(0, 10), (10, 30), (30, 40), (40, 50)]
    attention = torch.full((2, 7, 100), 1e-4)
    for row, (first, last) in enumerate(spans):
        attention[:, 3 + row, first:last] = 1.0
    attention[:, :3, 60:] = 1.0  # what the rest of the prompt attends to does not matter
    times = token_times(recogniser.model, [attention, attention], 3, num_frames=50, step_s=0.02)
    assert times == pytest.approx([0.0, 0.2, 0.6, 0.8], abs=0.03)


def test_the_silence_before_the_first_word_is_not_part_of_it() -> None:
    words = [Word("well", 0.0, 3.0), Word("this", 3.0, 3.2), Word("is", 3.2, 3.4), Word("it", 3.4, 3.8)]
    first, *others = without_lead(words)
    assert (first.start_s, first.end_s) == (pytest.approx(2.4), 3.0)
    assert others == words[1:]
    assert without_lead([]) == ()
