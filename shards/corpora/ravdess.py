"""RAVDESS (Livingstone and Russo 2018): acted emotions; everything is in the file's name.

01-01-05-01-02-01-12.mp4|.wav   modality-channel-emotion-intensity-statement-repetition-actor, in any folder
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shards.corpora.beside import attach_files, given_or_below, mirrored
from shards.corpora.files import find_files
from shards.record import RawClip
from shards.transcripts.attach import attach
from triptych.config import UserError

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

_NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(\d\d)-(\d\d)-(\d\d)")


@dataclass(frozen=True, kw_only=True)
class RavdessConfig:
    """RAVDESS, or a corpus named like it."""

    root: str
    """Folder with the files somewhere below it."""
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
        """All clips by name; labels emotion and intensity; `source` has modality, channel, statement, repetition,
        and take, which the files of one performance share.

        The corpus holds most utterances three times (av, video, audio); `keep` of the writer chooses among them.

        Raises:
            UserError: no file, an unreadable folder, a name that does not follow the code, a clip found twice, or bad
                transcripts or landmarks.
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
        if self.landmarks is not None:
            where = given_or_below(self.landmarks, root)
            files = mirrored(where, ".csv", 1)
            silent = {f"02{name[2:]}": path for name, path in files.items() if name.startswith("01-")}
            clips = attach_files(clips, "landmarks.csv", silent | files, where)
        unknown, tier = self.allow_unknown_transcripts, self.words_tier
        yield from attach(clips, self.transcripts, root, allow_unknown=unknown, words_tier=tier)


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
