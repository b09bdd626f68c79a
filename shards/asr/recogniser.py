"""What a speech recogniser is given and says, whatever its kind; and the way from clips to batches. No torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from shards.record import Word

_SILENT = 1e-4
"""Peak below which (-80 dB of full scale) nothing was said: models dream words into digital silence."""
_SHORTEST_S = 0.1
"""Shorter sound holds no word, and may be less than one step of a model."""
_PAUSE_S = 0.2
"""A long clip is cut in the middle of its quietest stretch of this length."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What was heard in a clip, or in one window of it."""

    words: tuple[Word, ...] = ()
    """Lower case, times in seconds from the start, with confidence."""
    log_probability: float = 0.0
    """Of all tokens of the words together, by the model."""
    num_tokens: int = 0
    languages: dict[str, float] = field(default_factory=dict)
    """Language code -> probability; empty where the model does not tell languages apart."""
    failed: str | None = None
    """Why what the model said is not to be used."""


class Recogniser(Protocol):
    """A model that hears words."""

    rate_hz: int
    """Of the sound that it takes."""
    longest_s: float
    """Of one window that it can take; inf without a limit."""
    padded_s: float | None
    """Length that every window is padded to; None: to the longest one of its batch."""
    only_equal: bool
    """The result for a window depends on padding, so that only windows of equal length may share a batch."""

    def hear(self, windows: Sequence[np.ndarray]) -> list[Heard]:
        """What each window ([N] float32 at `rate_hz`) says; independent of the others but for rounding."""
        ...


def recognise(
    sounds: Sequence[np.ndarray],
    recogniser: Recogniser,
    window_s: float,
    batch_s: float,
    advance: Callable[[int], None],
) -> list[Heard]:
    """What each clip says.

    Args:
        sounds: clips, [N] float32 at the recogniser's rate.
        recogniser: the model.
        window_s: longer clips are cut, in pauses.
        batch_s: sound in one batch in seconds, padding included; a single window may have more.
        advance: called with the number of windows after each batch; what is not given to the model is not counted.

    Returns:
        One for each clip, in order.
    """
    longest = int(min(window_s, recogniser.longest_s) * recogniser.rate_hz)
    places = [
        (clip, start, end)
        for clip, sound in enumerate(sounds)
        for start, end in cut(sound, longest, recogniser.rate_hz)
    ]
    lengths = [end - start for _, start, end in places]
    heard: dict[int, Heard] = {}
    for batch in batches(lengths, recogniser, batch_s):
        windows = [sounds[clip][start:end] for clip, start, end in (places[index] for index in batch)]
        heard |= dict(zip(batch, recogniser.hear(windows), strict=True))
        advance(len(batch))
    parts: list[list[tuple[int, int, Heard]]] = [[] for _ in sounds]
    for index, (clip, start, end) in enumerate(places):
        parts[clip].append((start, end, heard[index]))
    return [_joined(of_clip, recogniser.rate_hz) for of_clip in parts]


def cut(sound: np.ndarray, longest: int, rate_hz: int) -> list[tuple[int, int]]:
    """Windows of a clip as (start, end) samples, none longer than `longest`, cut in pauses; those with sound in them.

    A pause is looked for in the last third of a window, so that windows stay long: a model needs context.
    """
    pause = max(1, min(longest // 3, int(_PAUSE_S * rate_hz)))
    windows, start = [], 0
    while len(sound) - start > longest:
        first = start + 2 * longest // 3
        energy = np.concatenate([[0.0], np.cumsum(sound[first : start + longest].astype(np.float64) ** 2)])
        end = first + int(np.argmin(energy[pause:] - energy[:-pause])) + pause // 2
        windows.append((start, end))
        start = end
    windows.append((start, len(sound)))
    shortest = _SHORTEST_S * rate_hz
    return [(a, b) for a, b in windows if b - a >= shortest and np.abs(sound[a:b]).max() >= _SILENT]


def batches(lengths: Sequence[int], recogniser: Recogniser, batch_s: float) -> list[list[int]]:
    """Indexes of windows in batches of similar length, the longest first so that too large a batch fails at once."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if found:
            longest = lengths[found[-1][0]]
            padded_s = recogniser.padded_s or longest / recogniser.rate_hz
            fits = (len(found[-1]) + 1) * padded_s <= batch_s
            if fits and (lengths[index] == longest or not recogniser.only_equal):
                found[-1].append(index)
                continue
        found.append([index])
    return found


def _joined(parts: Sequence[tuple[int, int, Heard]], rate_hz: int) -> Heard:
    """A clip's windows as one; its language probabilities are their mean, weighted by length."""
    words: list[Word] = []
    for start, _, heard in parts:
        shift_s = start / rate_hz
        words += [replace(word, start_s=word.start_s + shift_s, end_s=word.end_s + shift_s) for word in heard.words]
    total = sum(end - start for start, end, _ in parts)
    languages: dict[str, float] = {}
    for start, end, heard in parts:
        for language, probability in heard.languages.items():
            languages[language] = languages.get(language, 0.0) + probability * (end - start) / total
    return Heard(
        words=tuple(words),
        log_probability=sum(heard.log_probability for *_, heard in parts),
        num_tokens=sum(heard.num_tokens for *_, heard in parts),
        languages=languages,
        failed=next((heard.failed for *_, heard in parts if heard.failed), None),
    )


def plain(text: str) -> str:
    """A word as a vocabulary has it: lower case, without punctuation around it; "" if nothing is left."""
    text = "".join(text.lower().replace("’", "'").split())
    kept = [index for index, letter in enumerate(text) if letter.isalnum()]
    return text[kept[0] : kept[-1] + 1] if kept else ""


def most_likely(languages: dict[str, float]) -> str | None:
    """The language of the highest probability; None where there is none to choose from."""
    return max(languages, key=lambda language: languages[language], default=None)
