"""MELD (Poria et al. 2019): dialogues of the series Friends; seven emotions and the sentiment of every utterance.

    train_sent_emo.csv               train_splits/dia<D>_utt<U>.mp4
    dev_sent_emo.csv                 dev_splits_complete/dia<D>_utt<U>.mp4
    test_sent_emo.csv                output_repeated_splits_test/dia<D>_utt<U>.mp4

anywhere below the root. Dialogue ids restart in each split, so a clip's key has it: train/dia0_utt3.
"""

import csv
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shards.files import find_files
from shards.media.decode import DecodeError, opened
from shards.record import RawClip
from shards.transcripts.mojibake import mend
from shards.transcripts.spread import spread
from triptych.config import UserError, nearest
from triptych.text_files import open_text

logger = logging.getLogger(__name__)

FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
"""The corpus' own name of a split -> folder of its clips."""
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
SENTIMENTS = ("negative", "neutral", "positive")

PUBLISHED = {"train": (9989, 1038), "dev": (1109, 114), "test": (2610, 280)}
"""Utterances and dialogues, as in the official csv files and the paper's table; the paper's 1,039 train dialogues
count one that has no utterance (its id 60 is in no row)."""
KNOWN_BAD = {
    "train/dia125_utt3": "known to be corrupt (MELD issues 39 and 52)",
    "train/dia309_utt0": "known to be a wrong cut, far longer than its sentence (MELD issue 20)",
    "test/dia38_utt4": "known to be a wrong cut of five minutes (MELD issue 20)",
    "test/dia220_utt0": "known to be a wrong cut of four minutes (MELD issue 20)",
}
KNOWN_MISSING = "dev/dia110_utt7"
"""Not among the published clips (MELD issues 22 and 27)."""
_WRONG_TIMES = ("train/dia309_utt0", "test/dia38_utt4", "test/dia220_utt0")
"""Their times in the csv files are those of the wrong cut."""
SECONDS_A_LETTER = 0.076
"""Median over all rows of the csv files: how long an utterance is taken to be whose times are wrong or no time."""

_COLUMNS = (
    *("Utterance", "Speaker", "Emotion", "Sentiment"),
    *("Dialogue_ID", "Utterance_ID", "Season", "Episode", "StartTime", "EndTime"),
)
_FINAL = "final_videos_test"
_TIME = re.compile(r"(\d{1,2}):(\d\d):(\d\d),(\d{1,3})")


@dataclass(frozen=True, kw_only=True)
class MeldConfig:
    """MELD."""

    root: str
    """Folder with the csv files and the folders of clips somewhere below it, as the archives unpack."""
    media: bool = True
    """false reads the csv files alone: text and labels."""
    keep_known_bad: bool = False
    """Write clips that are known to be cut wrongly too, as they are."""

    def clips(self) -> Iterator[RawClip]:
        """All rows in the order of the files; labels emotion and sentiment; speaker is the character.

        `source` has split (train, valid or test), dialogue, video (season and episode), season, episode, word_times
        and, where the csv's times cannot be used, times=reckoned. A row without its clip, or with one that is known to
        be bad, is `unusable`. Counts beside the published ones, and what is missing or damaged, are logged.

        Raises:
            UserError: a csv file is missing, found twice or not as published; with `media`, no clip at all.
        """
        tables, media = _find(Path(self.root))
        if self.media and not media:
            raise UserError(
                f"{self.root}: no clip; looked for {', '.join(FOLDERS.values())} with dia<D>_utt<U>.mp4 anywhere "
                "below it. For text and labels alone: corpus.meld.media=false"
            )
        rows = {row.key: row for split in FOLDERS for row in _read(tables[split], split)}
        for split in FOLDERS:
            _tell(split, [row for row in rows.values() if row.split == split])
        if self.media:
            media = _nearer(rows, media)
            _tell_media(rows, media)
        for row in rows.values():
            yield self._clip(row, media.get(row.key))

    def _clip(self, row: "_Row", path: Path | None) -> RawClip:
        source = {
            "split": SPLITS[row.split],
            "dialogue": f"{row.split}/dia{row.dialogue}",
            "video": f"s{row.season:02d}e{row.episode:02d}",
            "season": str(row.season),
            "episode": str(row.episode),
            "word_times": "spread",
        }
        unusable = None
        if self.media and path is None:
            known = ", as it is known to be in the published corpus" if row.key == KNOWN_MISSING else ""
            unusable = f"{FOLDERS[row.split]}/{row.name}.mp4 is missing{known}"
        elif self.media and not self.keep_known_bad:
            unusable = KNOWN_BAD.get(row.key)
        return RawClip(
            key=row.key,
            speaker=row.speaker,
            video=path if self.media else None,
            duration_s=None if self.media else row.duration_s,
            unusable=unusable,
            words=spread(row.text, 0.0, row.duration_s),
            source=source | ({"times": "reckoned"} if row.reckoned else {}),
            labels={"emotion": row.emotion, "sentiment": row.sentiment},
        )


@dataclass(frozen=True, kw_only=True)
class _Row:
    split: str
    dialogue: int
    utterance: int
    season: int
    episode: int
    speaker: str
    text: str
    mended: bool
    """Whether mojibake was put right in text or speaker."""
    emotion: str
    sentiment: str
    times_s: tuple[float, float]
    """In the episode, as the csv has them."""

    @property
    def name(self) -> str:
        return f"dia{self.dialogue}_utt{self.utterance}"

    @property
    def key(self) -> str:
        return f"{self.split}/{self.name}"

    @property
    def reckoned(self) -> bool:
        """Whether the times are of no use: none after the start (one row), or those of a wrong cut (three)."""
        return self.times_s[1] <= self.times_s[0] or self.key in _WRONG_TIMES

    @property
    def duration_s(self) -> float:
        if self.reckoned:
            return round(SECONDS_A_LETTER * max(1, len(self.text)), 3)
        return round(self.times_s[1] - self.times_s[0], 3)


def _find(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Split -> csv file, and split/name -> clip, whether or not a row knows it."""
    names = {f"{split}_sent_emo.csv": split for split in FOLDERS}
    folders = {folder: split for split, folder in FOLDERS.items()}
    tables: dict[str, Path] = {}
    media: dict[str, Path] = {}
    for path in sorted(find_files(root, (".csv", ".mp4"))):
        if path.name in names:
            where, key = tables, names[path.name]
        elif path.suffix.lower() == ".mp4" and path.parent.name in folders:
            where, key = media, f"{folders[path.parent.name]}/{path.stem}"
        else:
            continue
        if key in where:
            raise UserError(f"{path}: the same file is also at {where[key]}; keep one of them")
        where[key] = path
    if lacking := [name for name, split in names.items() if split not in tables]:
        raise UserError(f"{root}: no {', '.join(lacking)} anywhere below it; they come with the archives of MELD")
    return tables, media


def _read(path: Path, split: str) -> Iterator[_Row]:
    seen: set[str] = set()
    try:
        with open_text(path, newline="") as file:
            lines = csv.DictReader(file)
            if lacking := [name for name in _COLUMNS if name not in (lines.fieldnames or ())]:
                raise UserError(f"{path}: no column {', '.join(lacking)}; is it the csv file of MELD?")
            for fields in lines:
                row = _row(fields, split, f"{path}, line {lines.line_num}")
                if row.key in seen:
                    raise UserError(f"{path}, line {lines.line_num}: {row.name} comes twice")
                seen.add(row.key)
                yield row
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file ({error}); take the one that MELD published") from None


def _row(fields: Mapping[str, str | None], split: str, where: str) -> _Row:
    if None in (values := [fields[name] for name in _COLUMNS]):
        raise UserError(f"{where}: the row is cut off; take the file that MELD published")
    text, speaker, emotion, sentiment, *numbers, start, end = (str(value) for value in values)
    if not all(number.strip().isdecimal() for number in numbers):
        raise UserError(f"{where}: dialogue, utterance, season and episode are {', '.join(numbers)}; expected numbers")
    dialogue, utterance, season, episode = map(int, numbers)
    mended = mend(text), " ".join(mend(speaker).split())
    if not mended[1]:
        raise UserError(f"{where}: nobody speaks; take the file that MELD published")
    return _Row(
        split=split,
        dialogue=dialogue,
        utterance=utterance,
        season=season,
        episode=episode,
        text=mended[0],
        speaker=mended[1],
        mended=mend(text) != text or mend(speaker) != speaker,
        emotion=_one_of(emotion, EMOTIONS, where),
        sentiment=_one_of(sentiment, SENTIMENTS, where),
        times_s=(_seconds(start, where), _seconds(end, where)),
    )


def _one_of(value: str, classes: tuple[str, ...], where: str) -> str:
    name = value.strip().lower()
    if name not in classes:
        raise UserError(f"{where}: no class {value!r}.{nearest(name, classes)}")
    return name


def _seconds(text: str, where: str) -> float:
    """Seconds of hh:mm:ss,ms; some hours have one digit."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise UserError(f"{where}: the time is {text!r}; expected hh:mm:ss,ms")
    hours, minutes, seconds = map(int, found.groups()[:3])
    return round(3600 * hours + 60 * minutes + seconds + int(found[4].ljust(3, "0")) / 1000, 3)


def _tell(split: str, rows: list[_Row]) -> None:
    """Log what was found beside what is published, and what was put right."""
    found = len(rows), len({row.dialogue for row in rows})
    level = logging.INFO if found == PUBLISHED[split] else logging.WARNING
    logger.log(
        level,
        "meld %s: %d utterances in %d dialogues (published: %d in %d); %s",
        split,
        *found,
        *PUBLISHED[split],
        ", ".join(f"{name} {number}" for name, number in sorted(Counter(row.emotion for row in rows).items())),
    )
    if reckoned := [row.key for row in rows if row.reckoned]:
        logger.warning(
            "meld %s: the times of %s are wrong or no time: their length is reckoned from the text",
            split,
            ", ".join(reckoned),
        )
    if mended := sum(row.mended for row in rows):
        logger.warning("meld %s: mojibake was put right in %d rows", split, mended)


def _nearer(rows: Mapping[str, _Row], media: dict[str, Path]) -> dict[str, Path]:
    """The clips, each of two files of a row the one whose length is nearer to that of the row's times.

    MELD's test folder has 132 files named final_videos_test... beside those of the csv file. MELD's author says that
    they can be ignored (issue 22); users found that some of them, and not the plain ones, have the sound of the row.
    """
    chosen, beside, taken = dict(media), 0, 0
    for key, final in media.items():
        split, _, name = key.partition("/")
        plain = f"{split}/{name.removeprefix(_FINAL)}"
        row = rows.get(plain)
        if not name.startswith(_FINAL) or row is None or row.reckoned or plain not in media:
            continue
        beside += 1
        off_s = {path: abs(_length_s(path) - row.duration_s) for path in (media[plain], final)}
        if off_s[final] < off_s[media[plain]]:
            chosen[plain], taken = final, taken + 1
        del chosen[key]
    if beside:
        logger.warning(
            "meld: %d rows have two files; of %d the one named %s... is taken, which fits its times better",
            beside,
            taken,
            _FINAL,
        )
    return chosen


def _length_s(path: Path) -> float:
    """As the file's header has it; endless where it cannot be read: the file is looked into when it is written."""
    try:
        with opened(path) as container:
            return float(container.duration or math.inf) / 1e6
    except DecodeError:
        return math.inf


def _tell_media(rows: Mapping[str, _Row], media: Mapping[str, Path]) -> None:
    if missing := [key for key in rows if key not in media]:
        logger.warning("meld: %d rows have no clip, first: %s", len(missing), missing[0])
    if extra := [key for key in media if key not in rows]:
        logger.warning("meld: %d clips have no row and were left out, first: %s", len(extra), extra[0])
