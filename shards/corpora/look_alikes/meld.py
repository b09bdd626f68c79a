"""Files like MELD's, with what is known to be wrong with them: 22 utterances in 9 dialogues of three people."""

import csv
from dataclasses import dataclass
from pathlib import Path

from shards.corpora.look_alikes.people import in_turn, utter
from shards.corpora.look_alikes.picture import write_picture
from shards.corpora.meld import FOLDERS
from shards.corpora.synthetic_render import write_media

HEADER = (
    *("Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment"),
    *("Dialogue_ID", "Utterance_ID", "Season", "Episode", "StartTime", "EndTime"),
)
DIALOGUES = {"train": {0: 4, 1: 3, 125: 4, 309: 1}, "dev": {0: 2, 110: 1}, "test": {0: 4, 38: 1, 220: 1, 155: 1}}
"""Split -> dialogue -> utterances: those after the first ones are there for the file known to be bad in them."""

_PEOPLE = ("Ann", "Ben", "Guest #1")
_EMOTIONS = {
    "neutral": ("neutral", "neutral"),
    "joy": ("happy", "positive"),
    "sadness": ("sad", "negative"),
    "anger": ("angry", "negative"),
    "surprise": ("happy", "positive"),
    "fear": ("sad", "negative"),
    "disgust": ("angry", "negative"),
}
"""Emotion -> mood of the made-up voice and face, and sentiment."""
_CORRUPT, _MISSING, _NO_TIME = ("train", 125, 3), ("dev", 110, 0), ("test", 155, 0)
_WRONG_CUTS = (("train", 309, 0), ("test", 38, 0), ("test", 220, 0))
_SILENT = ("test", 0, 1)
_QUOTED, _MOJIBAKE, _SPACED = ("train", 0, 0), ("train", 0, 1), ("train", 0, 2)
_RENUMBERED = {("dev", 110, 0): 7, ("test", 38, 0): 4, ("test", 155, 0): 3}
"""Utterances whose known fault is at another number than their place in the tiny dialogue."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    split: str
    dialogue: int
    utterance: int
    number: int
    """Of the row in its file, from 0."""

    @property
    def where(self) -> tuple[str, int, int]:
        return self.split, self.dialogue, self.utterance

    @property
    def stem(self) -> str:
        return f"dia{self.dialogue}_utt{_RENUMBERED.get(self.where, self.utterance)}"


def make(folder: Path, seed: int) -> None:
    """Fill an empty folder.

    Faults: a corrupt, a missing and three wrongly cut clips under the names of the real ones, a clip without sound, a
    row without duration, clips without a row, curly quotes, mojibake, a speaker with a blank too much, CRLF; and the
    official split, which divides dialogues but not episodes.
    """
    for split, dialogues in DIALOGUES.items():
        places = [(dialogue, number) for dialogue, count in dialogues.items() for number in range(count)]
        (folder / FOLDERS[split]).mkdir()
        rows = []
        for number, (dialogue, utterance) in enumerate(places):
            place = _Place(split=split, dialogue=dialogue, utterance=utterance, number=number)
            rows.append(_make_row(folder, place, seed))
        with (folder / f"{split}_sent_emo.csv").open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, lineterminator="\r\n")
            lines.writerows([HEADER, *rows])
    test = folder / FOLDERS["test"]
    (test / "final_videos_testdia0_utt0.mp4").write_bytes((test / "dia0_utt0.mp4").read_bytes())
    (test / "._dia0_utt0.mp4").write_bytes(b"what a Mac leaves in archives")
    (folder / FOLDERS["train"] / "dia7_utt0.mp4").write_bytes((test / "dia0_utt0.mp4").read_bytes())


def _make_row(folder: Path, place: _Place, seed: int) -> tuple[object, ...]:
    """Write the clip; its row."""
    emotion = tuple(_EMOTIONS)[place.number % len(_EMOTIONS)]
    mood, sentiment = _EMOTIONS[emotion]
    speaker = _PEOPLE[place.utterance % len(_PEOPLE)]
    key = f"meld/{place.split}/{place.stem}"
    spoken = utter(seed, speaker, key, mood)
    frames, samples = spoken.frames, spoken.samples
    if place.where in _WRONG_CUTS:  # what comes after the sentence is in the clip too
        frames, samples, _ = in_turn([spoken, utter(seed, "someone", key), utter(seed, "someone else", key)])
    if place.where != _MISSING:
        video = folder / FOLDERS[place.split] / f"{place.stem}.mp4"
        if place.where == _SILENT:
            write_picture(video, frames)
        else:
            write_media(frames, samples, video, None, independent=False)
        if place.where == _CORRUPT:
            video.write_bytes(video.read_bytes()[:600])
    start_s = 60 * place.dialogue + 10 * place.utterance + 0.059
    end_s = start_s + len(frames) / 25
    return (
        *(place.number + 1, _text(spoken.text, place), speaker + " " * (place.where == _SPACED), emotion, sentiment),
        *(place.dialogue, place.stem.rpartition("utt")[2], 8, place.dialogue % 24 + 1),
        *(_time(second, place) for second in (start_s, start_s if place.where == _NO_TIME else end_s)),
    )


def _text(text: str, place: _Place) -> str:
    if place.where == _QUOTED:
        return f"“{text}” That’s right, isn’t it?"
    return f"That’s it, {text}".replace("’", "â€™") if place.where == _MOJIBAKE else text


def _time(second: float, place: _Place) -> str:
    """hh:mm:ss,ms; the test file has hours of one digit."""
    ms = round(1000 * second)
    hours = f"{ms // 3_600_000:0{1 if place.split == 'test' else 2}d}"
    return f"{hours}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"
