"""One recording in the layout of AVEC 2017 and 2019: sound, picture, labels at 10 Hz, turns and transcript."""

from pathlib import Path

import numpy as np

from shards.corpora.look_alikes.people import FPS, in_turn, utter, write_wav
from shards.corpora.look_alikes.picture import write_picture
from shards.corpora.synthetic_script import rng

_AROUSAL = {"neutral": 0.0, "happy": 0.3, "sad": -0.2, "angry": 0.4}
_VALENCE = {"neutral": 0.05, "happy": 0.4, "sad": -0.3, "angry": -0.35}


def make_recording(folder: Path, name: str, seed: int, *, utterances: int, header: bool) -> None:
    """Write the files of a recording; of the test part all but the labels.

    Args:
        folder: the corpus; its folders are made.
        name: of the recording, as Train_01.
        seed: of the corpus.
        utterances: that it consists of, each of 2 to 4 s and in a mood of its own; the second one is the other
            person's, who is heard and not seen, and of whom no turn tells.
        header: whether the labels have the header and the quotes of AVEC 2019.
    """
    for kind in ("labels", "turns", "transcriptions", "audio", "video"):
        (folder / kind).mkdir(exist_ok=True)
    drawn = rng(seed, "avec", name)
    moods = [str(mood) for mood in drawn.permutation([*_AROUSAL, "neutral"])][:utterances]
    spoken = [utter(seed, name, f"avec/{name}/{number}", mood) for number, mood in enumerate(moods)]
    frames, samples, starts_s = in_turn(spoken)
    write_wav(folder / "audio" / f"{name}.wav", samples)
    write_picture(folder / "video" / f"{name}.avi", frames)  # without sound: that is in the wav file alone
    own = [(start_s, one) for number, (start_s, one) in enumerate(zip(starts_s, spoken, strict=True)) if number != 1]
    turns = [f"{start_s:.3f};{start_s + one.duration_s:.3f}\n" for start_s, one in own]
    said = [f"{turn[:-1]};{one.text}\n" for turn, (_, one) in zip(turns, own, strict=True)]
    (folder / "turns" / f"{name}.csv").write_text("".join(turns), encoding="utf-8")
    (folder / "transcriptions" / f"{name}.csv").write_text("".join(said), encoding="utf-8")
    if name.startswith("Test"):
        return
    times_s = np.arange(int(10 * len(frames) / FPS)) / 10
    place = np.searchsorted(starts_s, times_s, side="right") - 1
    tracks = [_smooth(np.array([levels[moods[one]] for one in place])) for levels in (_AROUSAL, _VALENCE)]
    tracks.append(_smooth(drawn.normal(0, 0.2, len(times_s))))
    label = f"'{name}'" if header else name
    lines = ["name;timestamp;arousal;valence;liking\n"] if header else []
    lines += [
        ";".join([label, f"{time_s:.6f}", *(f"{track[step]:.6f}" for track in tracks)]) + "\n"
        for step, time_s in enumerate(times_s)
    ]
    (folder / "labels" / f"{name}.csv").write_text("".join(lines), encoding="utf-8")


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a second: raters are slower than a change of mood."""
    return np.convolve(np.pad(values, 5, mode="edge"), np.full(10, 0.1), mode="valid")[: len(values)]
