"""RAVDESS (Livingstone and Russo 2018): acted emotions; everything is in the file's name.

01-01-05-01-02-01-12.mp4|.wav   modality-channel-emotion-intensity-statement-repetition-actor, in any folder

The corpus holds a performance up to three times, with picture and sound, without sound, and without picture. Two of
them on two sides of a split are a leak, so one modality is read unless all are asked for.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from shards.corpora.beside import attach_files, given_or_below, mirrored
from shards.files import find_files
from shards.record import RawClip
from shards.transcripts.attach import attach
from triptych.config import UserError

logger = logging.getLogger(__name__)

MODALITIES = {"01": "av", "02": "video", "03": "audio"}
CHANNELS = {"01": "speech", "02": "song"}
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
INTENSITIES = {"01": "normal", "02": "strong"}

ACTORS = tuple(f"{actor:02d}" for actor in range(1, 25))
PUBLISHED = {"speech": 1440, "song": 1012}
"""Performances of a channel, each in every modality (Livingstone and Russo 2018, zenodo.org/records/1188976): 60 of 24
actors, and 44 of the 23 that sing; actor 18 does not. Song has neither disgust nor surprise."""

_TOLD = 10
"""Most missing performances that are named one by one."""
_NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(\d\d)-(\d\d)-(\d\d)")


@dataclass(frozen=True, kw_only=True)
class RavdessConfig:
    """RAVDESS, or a corpus named like it."""

    root: str
    """Folder with the files somewhere below it."""
    modality: Literal["auto", "av", "audio", "video", "all"] = "auto"
    """Which files of a performance: av has picture and sound, video no sound, audio no picture. auto is av where there
    is any such file, else audio, else video. all takes a performance up to three times."""
    song: bool = False
    """Also the sung performances."""
    transcripts: list[str] = field(default_factory=list)
    """Kaldi CTM files, or folders of a TextGrid or Whisper JSON a clip; as given or relative to the root. Utterances
    are the clips' file names without ending."""
    allow_unknown_transcripts: bool = False
    """Leave out transcripts of clips that are not there instead of stopping."""
    words_tier: str | None = None
    """Tier of TextGrids that holds the words; when not given, the one named word or words."""
    landmarks: str | None = None
    """Folder with OpenFace's csv files somewhere below it (Zenodo 3255102), as given or relative to the root. They are
    named like the av clips, 01-...; the video clips, 02-..., are the same recordings and take the same file."""

    def clips(self) -> Iterator[RawClip]:
        """The chosen clips by name, with labels emotion and intensity; what was left out is logged, and what lacks.

        `source` has modality, channel, statement, repetition and take: the performance, the same in all modalities.

        Raises:
            UserError: no file, an unreadable folder, a name that does not follow the code, a clip found twice, nothing
                of the modality, or bad transcripts or landmarks.
        """
        root = Path(self.root)
        paths: dict[str, Path] = {}
        for path in sorted(find_files(root, (".mp4", ".wav"))):
            if path.stem in paths:
                raise UserError(f"{path}: the clip is also at {paths[path.stem]}; keep one of them")
            paths[path.stem] = path
        if not paths:
            raise UserError(
                f"{root}: no clip; looked for files like 01-01-05-01-02-01-12.mp4 or .wav anywhere below it"
            )
        clips = [_clip(paths[key]) for key in sorted(paths)]
        unknown, tier = self.allow_unknown_transcripts, self.words_tier
        clips = attach(clips, self.transcripts, root, allow_unknown=unknown, words_tier=tier)
        clips = self._chosen(clips, root)
        if self.landmarks is not None:
            where = given_or_below(self.landmarks, root)
            files = mirrored(where, ".csv", 1)
            silent = {f"02{name[2:]}": path for name, path in files.items() if name.startswith("01-")}
            clips = attach_files(clips, "landmarks.csv", silent | files, where)
        yield from clips

    def _chosen(self, clips: Sequence[RawClip], root: Path) -> list[RawClip]:
        channels = ("speech", "song") if self.song else ("speech",)
        there = Counter(map(_kind, clips))
        modalities = [name for name in ("av", "audio", "video") if any(there[name, channel] for channel in channels)]
        if self.modality == "auto":
            modalities = modalities[:1]
        elif self.modality != "all":
            modalities = [self.modality]
        wanted = set(product(modalities, channels))
        chosen = [clip for clip in clips if _kind(clip) in wanted]
        if not chosen:
            raise UserError(
                f"{root}: no clip is left with modality: {self.modality}, song: {str(self.song).lower()}; there are "
                f"{_told(there)}"
            )
        if left := {kind: count for kind, count in there.items() if kind not in wanted}:
            logger.warning("%s: left out %s: see modality and song of the config", root, _told(left))
        for kind in sorted(wanted):
            _compare(root, kind, {clip.source["take"] for clip in chosen if _kind(clip) == kind})
        return chosen


def _kind(clip: RawClip) -> tuple[str, str]:
    return clip.source["modality"], clip.source["channel"]


def _told(counts: Mapping[tuple[str, str], int]) -> str:
    return ", ".join(f"{count} {modality} {channel}" for (modality, channel), count in sorted(counts.items()))


def published(channel: str) -> frozenset[str]:
    """The performances of the published corpus, as `source["take"]`."""
    emotions = [code for code in EMOTIONS if channel == "speech" or code <= "06"]
    singers = [actor for actor in ACTORS if channel == "speech" or actor != "18"]
    code = next(code for code, name in CHANNELS.items() if name == channel)
    return frozenset(
        "-".join((code, emotion, *others))
        for emotion, *others in product(emotions, INTENSITIES, ("01", "02"), ("01", "02"), singers)
        if (emotion, others[0]) != ("01", "02")  # there is no strong neutral
    )


def _compare(root: Path, kind: tuple[str, str], takes: set[str]) -> None:
    """Log how many of the published performances are there in a modality and channel, and which are not."""
    modality, channel = kind
    wanted = published(channel)
    if takes - wanted:
        logger.info("%s: a corpus of its own, only named like RAVDESS", root)
        return
    missing, actors = wanted - takes, {take[-2:] for take in takes}
    told = [f"all of actors {' '.join(whole)}"] if (whole := sorted({take[-2:] for take in missing} - actors)) else []
    if single := sorted(take for take in missing if take[-2:] in actors):
        told.append(", ".join(single[:_TOLD]) + (f" and {len(single) - _TOLD} more" if len(single) > _TOLD else ""))
    logger.log(
        logging.WARNING if missing else logging.INFO,
        "%s: %d of the %d published %s %s clips%s",
        root,
        len(takes),
        PUBLISHED[channel],
        modality,
        channel,
        f"; missing: {'; '.join(told)}" if told else "",
    )


def _clip(path: Path) -> RawClip:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        raise UserError(
            f"{path}: not a RAVDESS name; expected seven two-digit codes, "
            "modality-channel-emotion-intensity-statement-repetition-actor, like 01-01-05-01-02-01-12"
        )
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    return RawClip(
        key=path.stem,
        speaker=f"actor-{actor}",
        video=path if path.suffix.lower() == ".mp4" else None,
        audio=path if path.suffix.lower() == ".wav" else None,
        source={
            "modality": MODALITIES[modality],
            "channel": CHANNELS[channel],
            "statement": statement,
            "repetition": repetition,
            "take": path.stem[3:],  # of one performance: its av, video and audio files
        },
        labels={"emotion": EMOTIONS[emotion], "intensity": INTENSITIES[intensity]},
    )
