"""From clips to windows to batches, and back; words as a vocabulary has them."""

from collections.abc import Sequence

import numpy as np
import pytest

from shards.asr.recogniser import Heard, batches, cut, plain, recognise
from shards.record import Word

RATE_HZ = 1000


class Loudness:
    """Hears one word a window, its level, over the whole window; and speaks only English where it is loud."""

    rate_hz = RATE_HZ
    longest_s = 30.0
    only_equal = False

    def __init__(self, padded_s: float | None = None) -> None:
        self.padded_s = padded_s
        self.batches: list[list[int]] = []

    def hear(self, windows: Sequence[np.ndarray]) -> list[Heard]:
        self.batches.append([len(window) for window in windows])
        return [self.one(window) for window in windows]

    def one(self, window: np.ndarray) -> Heard:
        level = float(np.abs(window).max())
        word = Word(f"{level:.1f}", 0.0, len(window) / RATE_HZ, level)
        return Heard(words=(word,), log_probability=-level, num_tokens=1, languages={"en": level, "de": 1 - level})


def level(value: float, seconds: float) -> np.ndarray:
    return np.full(round(seconds * RATE_HZ), value, dtype=np.float32)


def test_windows_cover_a_clip_and_are_cut_in_its_pauses() -> None:
    clip = np.concatenate([level(0.5, 8.5), level(0.001, 0.5), level(0.5, 8), level(0.001, 0.4), level(0.5, 4.6)])
    windows = cut(clip, 10 * RATE_HZ, RATE_HZ)
    assert [0, *(end for _, end in windows)] == [*(start for start, _ in windows), 22000]
    first, second, _ = (end for _, end in windows)
    assert 8500 < first < 9000
    assert 17000 < second < 17400
    assert all(end - start <= 10 * RATE_HZ for start, end in windows)


def test_a_clip_without_pauses_is_cut_all_the_same() -> None:
    windows = cut(level(0.5, 95), 10 * RATE_HZ, RATE_HZ)
    assert sum(end - start for start, end in windows) == 95 * RATE_HZ
    assert all(0 < end - start <= 10 * RATE_HZ for start, end in windows)


def test_silence_and_a_blink_of_sound_are_not_given_to_the_model() -> None:
    model = Loudness()
    heard = recognise([level(0, 3), level(0.4, 0.05), level(0.4, 0), level(0.4, 1)], model, 10, 100, lambda _: None)
    assert [len(said.words) for said in heard] == [0, 0, 0, 1]
    assert model.batches == [[1000]]


def test_words_of_later_windows_have_times_of_the_clip() -> None:
    clip = np.concatenate([level(0.2, 9), level(0.9, 6)])
    (said,) = recognise([clip], Loudness(), 10, 100, lambda _: None)
    assert [(word.text, word.end_s) for word in said.words][-1] == ("0.9", 15.0)
    assert said.words[0].end_s == said.words[1].start_s
    assert said.num_tokens == 2
    shares = said.words[0].end_s / 15, 1 - said.words[0].end_s / 15
    levels = [word.confidence or 0.0 for word in said.words]
    assert said.languages["en"] == pytest.approx(sum(share * value for share, value in zip(shares, levels)))


def test_what_failed_in_one_window_fails_the_clip() -> None:
    model = Loudness()
    model.one = lambda window: Heard(failed="loops" if window.max() > 0.5 else None)  # type: ignore[method-assign]
    heard = recognise([np.concatenate([level(0.2, 9), level(0.9, 9)]), level(0.2, 1)], model, 10, 99, lambda _: None)
    assert [said.failed for said in heard] == ["loops", None]


def test_results_come_in_the_order_of_the_clips_whatever_the_batches() -> None:
    clips = [level(0.1 * (1 + index % 9), 1 + index % 4) for index in range(20)]
    for batch_s in (0.5, 5, 1000):
        heard = recognise(clips, Loudness(), 30, batch_s, lambda _: None)
        assert [said.words[0].text for said in heard] == [f"{clip.max():.1f}" for clip in clips]


@pytest.mark.parametrize(("padded_s", "most"), [(None, 12.0), (4.0, 12.0)])
def test_a_batch_holds_no_more_sound_than_allowed_with_its_padding(padded_s: float | None, most: float) -> None:
    lengths = [round(RATE_HZ * (0.5 + index % 7 / 2)) for index in range(50)]
    found = batches(lengths, Loudness(padded_s), most)
    assert sorted(index for batch in found for index in batch) == list(range(50))
    sizes = [(len(batch), max(lengths[index] for index in batch) / RATE_HZ) for batch in found]
    assert all(count * (padded_s or longest) <= most for count, longest in sizes)
    assert len(found) < 20


def test_a_window_longer_than_a_batch_is_a_batch() -> None:
    assert batches([9000, 9000], Loudness(), 1) == [[0], [1]]


def test_windows_that_may_not_be_padded_share_a_batch_with_their_equals_only() -> None:
    model = Loudness()
    model.only_equal = True
    assert batches([5, 9, 5, 9, 7], model, 100) == [[1, 3], [4], [0, 2]]


@pytest.mark.parametrize(
    ("written", "word"),
    [
        (" Hello,", "hello"),
        ("DON'T", "don't"),
        ("it’s", "it's"),
        ("“twenty-one”", "twenty-one"),
        ("..", ""),
        ("é!", "é"),
    ],
)
def test_a_word_loses_its_case_and_the_punctuation_around_it(written: str, word: str) -> None:
    assert plain(written) == word
