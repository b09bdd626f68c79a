"""Do picture, sound and words of a set agree in time? The lag at which they go together best, of a set and of a clip.

A talking mouth moves when there is sound, and words are where sound is: loudness, in steps of 40 ms, is correlated with
the motion of the picture's lower middle and with the words' own times, at every lag up to a second. One clip of natural
speech tells little; the mean over some hundred clips tells a set's lag to a step, and a clip that is far from it *and*
fits much better there is named.

Measured on 120 clips each (`tests/shards/test_real_corpora.py`): no clip of GRID or of 14 people's VoxCeleb2-form clips
is named; of GRID's clips with the sound moved by 0.6 s about four in ten are, of natural speech hardly any.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from shards.media.decode import DecodeError, audio_of, decode_audio, decode_video, video_of
from shards.reading.index import ShardSet
from shards.record import ClipRecord, Word

RATE_HZ = 25
_SAMPLES = 640
"""Of sound in a step, at 16 kHz."""
_LAGS = RATE_HZ
"""Steps to each side: one second."""
_NEAR = 3
"""Steps: a clip's best lag that is no farther from the set's is the set's."""
_FITS, _BETTER = 0.55, 0.4
"""A clip's correlation at its own lag, and how much more that is than near the set's, for it to be named."""
_PLAIN = 0.4
"""Correlation from which a single clip's lag is told at all."""
_WIDEST_S = 0.4
"""Of the interval of a set's lag that is told; a wider one says nothing."""
_PAUSES = 0.2
"""Share of a clip that must be unspoken, and spoken, for its own words to tell a lag: a lone pause fits anywhere."""
_FEWEST_STEPS = 2 * _LAGS
_FEWEST_CLIPS = 20
NUM_CLIPS = 120
"""Clips of a set that are looked at: some ten seconds."""
_LONGEST_S = 30.0
_QUIET = 1e-3
"""Added to the loudness, so that silence is not endlessly quiet."""
_DRAWS = 500


@dataclass(frozen=True)
class Offset:
    """How much later the sound comes than what it is compared with."""

    beside: str
    """`mouth` or `words`."""
    seconds: float | None
    """None where the clips do not agree on one."""
    low_s: float
    high_s: float
    """95 % of the lags of sets of clips drawn from these."""
    clips: int
    outliers: tuple[tuple[str, float], ...]
    """Clips whose sound comes clearly at another time, and their own lag."""

    def told(self) -> Iterator[str]:
        """Sentences for a person."""
        after = {"mouth": "the mouth's motion", "words": "the words' times"}[self.beside]
        if self.seconds is None:
            yield f"sound and {after}: {self.clips} clips do not tell how they lie in time"
            return
        interval = f"[{self.low_s:+.2f}, {self.high_s:+.2f}]"
        yield f"sound after {after}: {self.seconds:+.2f} s {interval}, by {self.clips} clips"
        for key, seconds in self.outliers:
            yield f"  {key}: {seconds:+.2f} s; look at it: python -m shards show FOLDER clips={key}"


def of_folder(folder: Path, *, quiet: bool) -> list[Offset]:
    """The offsets of a shard set, by `NUM_CLIPS` clips spread evenly over it.

    Args:
        folder: of the set, whose bytes are proven to be those that were written.
        quiet: draw no progress bar.
    """
    shard_set = ShardSet(folder)
    places = [(split, number) for split in map(shard_set.split, shard_set.splits) for number in range(len(split))]
    chosen = [places[place * len(places) // NUM_CLIPS] for place in range(NUM_CLIPS)] if places else []
    found: dict[str, dict[str, np.ndarray]] = {"mouth": {}, "words": {}}
    spoken = set()
    for split, number in track(list(dict.fromkeys(chosen)), "picture, sound and words in time", disable=quiet):
        record = split.record(number)
        if not _PAUSES <= _share_spoken(record) <= 1 - _PAUSES:
            spoken.add(record.key)
        for beside, curve in _curves(record, split.read(number)):
            found[beside][record.key] = curve
    return [
        of_set(beside, curves, unsure=spoken if beside == "words" else ())
        for beside, curves in found.items()
        if len(curves) >= _FEWEST_CLIPS
    ]


def of_set(beside: str, curves: Mapping[str, np.ndarray], unsure: Collection[str] = ()) -> Offset:
    """The lag of the mean curve, its interval by drawing clips anew, and the clips that are clearly elsewhere.

    Args:
        beside: what the sound is compared with.
        curves: clip -> [2 lags + 1] correlation at each lag.
        unsure: clips that are not named, wherever their curve is highest.
    """
    rows = np.array(list(curves.values()))
    draw = np.random.default_rng(0)
    lags = [_peak_s(rows[draw.integers(0, len(rows), len(rows))].mean(axis=0)) for _ in range(_DRAWS)]
    low_s, high_s = np.quantile(lags, [0.025, 0.975])
    if high_s - low_s > _WIDEST_S:
        return Offset(beside, None, float(low_s), float(high_s), len(rows), ())
    middle = int(rows.mean(axis=0).argmax())
    near = rows[:, max(0, middle - _NEAR) : middle + _NEAR + 1].max(axis=1)
    best = rows.max(axis=1)
    elsewhere = (best >= _FITS) & (best - near >= _BETTER)
    outliers = tuple(
        (key, _peak_s(row)) for key, row, far in zip(curves, rows, elsewhere, strict=True) if far and key not in unsure
    )
    return Offset(beside, _peak_s(rows.mean(axis=0)), float(low_s), float(high_s), len(rows), outliers)


def of_clip(record: ClipRecord, members: Mapping[str, bytes]) -> dict[str, float]:
    """How many seconds later the sound comes than `mouth` and `words`, of one clip; without what it does not tell."""
    sure = {"mouth": True, "words": _PAUSES <= _share_spoken(record) <= 1 - _PAUSES}
    curves = {beside: curve for beside, curve in _curves(record, members) if sure[beside]}
    return {beside: _peak_s(curve) for beside, curve in curves.items() if curve.max() >= _PLAIN}


def _curves(record: ClipRecord, members: Mapping[str, bytes]) -> Iterator[tuple[str, np.ndarray]]:
    audio, video = audio_of(members), video_of(members)
    if audio is None or record.duration_s > _LONGEST_S or not (record.words or video is not None):
        return
    try:
        loudness = _loudness(audio)
        motion = None if loudness is None or video is None else _motion(video)
    except DecodeError:  # a picture too short to move in; what is damaged was found before
        return
    if loudness is None:
        return
    if motion is not None and (curve := correlation(loudness, motion)) is not None:
        yield "mouth", curve
    if record.words and (curve := correlation(loudness, _spoken(record.words, len(loudness)))) is not None:
        yield "words", curve


def _share_spoken(record: ClipRecord) -> float:
    return sum(word.end_s - word.start_s for word in record.words or ()) / max(record.duration_s, 1e-3)


def correlation(sound: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """[2 lags + 1] of two series at each lag, the last ones where the sound is later; None where either stands still.

    Both are smoothed over three steps, and normed over their common length.
    """
    steps = min(len(sound), len(other))
    if steps < _FEWEST_STEPS:
        return None
    left, right = (np.convolve(series[:steps], np.ones(3) / 3, "valid") for series in (sound, other))
    if min(left.std(), right.std()) < 1e-6:
        return None
    left, right = (left - left.mean()) / left.std(), (right - right.mean()) / right.std()
    steps = len(left)
    products = np.correlate(left, right, "full")[steps - 1 - _LAGS : steps + _LAGS]
    return products / np.sqrt(steps * (steps - np.abs(np.arange(-_LAGS, _LAGS + 1))))


def _peak_s(curve: np.ndarray) -> float:
    """Where a curve is highest: between the steps, by the parabola through three of them."""
    at = int(curve.argmax())
    between = 0.0
    if 0 < at < len(curve) - 1:
        before, here, after = curve[at - 1 : at + 2]
        bend = before - 2 * here + after
        between = 0.0 if bend == 0 else float((before - after) / (2 * bend))
    return (at + between - _LAGS) / RATE_HZ


def _loudness(audio: bytes) -> np.ndarray | None:
    """[T] logarithm of the sound's mean power; None where there is none."""
    samples = decode_audio(audio, RATE_HZ * _SAMPLES)
    if samples is None:
        return None
    steps = samples[: len(samples) // _SAMPLES * _SAMPLES].reshape(-1, _SAMPLES)
    return np.log10(np.sqrt(np.square(steps).mean(axis=1)) + _QUIET)


def _motion(video: bytes) -> np.ndarray | None:
    """[T] mean change of the brightness in the lower middle of the picture, where a filmed face has its mouth."""
    frames = decode_video(video, RATE_HZ)
    if frames is None or len(frames) < 2:
        return None
    grey = frames[:, ::4, ::4].mean(axis=-1, dtype=np.float32)
    height, width = grey.shape[1:]
    mouth = grey[:, height // 2 : height * 15 // 16, width // 4 : width * 3 // 4]
    if not mouth.size:
        return None
    change = np.abs(np.diff(mouth, axis=0)).mean(axis=(1, 2))
    return np.concatenate([change[:1], change])


def _spoken(words: tuple[Word, ...], steps: int) -> np.ndarray:
    """[T] 1 where a word is spoken, by its own times."""
    spoken, middles = np.zeros(steps), (np.arange(steps) + 0.5) / RATE_HZ
    for word in words:
        spoken[(middles >= word.start_s) & (middles < word.end_s)] = 1
    return spoken
