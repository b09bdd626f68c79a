"""VoxCeleb2 (Chung, Nagrani, Zisserman 2018) and corpora in its layout.

    <root>/<set>/mp4/<speaker>/<video>/<clip>.mp4      sound inside, or in the file below
    <root>/<set>/aac/<speaker>/<video>/<clip>.m4a
    <root>/<set>/txt/<speaker>/<video>/<clip>.txt      face tracks, see shards.corpora.face_track

`<set>` is dev or test as the corpus ships it, any other folder name of a mirror, or missing. A clip may lack
any of them.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from shards.corpora.beside import attach_files, given_or_below, mirrored
from shards.corpora.face_track import read_header
from shards.files import find_files
from shards.record import RawClip
from shards.transcripts.attach import attach
from triptych.config import UserError
from triptych.text_files import open_text

_KINDS = (("mp4", "video"), ("aac", "audio"))
_SUFFIXES = {"mp4": ".mp4", "aac": ".m4a"}


@dataclass(frozen=True, kw_only=True)
class VoxCeleb2Config:
    """A corpus in VoxCeleb2's layout."""

    root: str
    """Folder that holds dev/ and test/, or mp4/ and aac/ themselves."""
    transcripts: list[str] = field(default_factory=list)
    """Kaldi CTM files, or folders of a TextGrid or Whisper JSON a clip; as given or relative to the root."""
    allow_unknown_transcripts: bool = False
    """Leave out transcripts of clips that are not there instead of stopping."""
    words_tier: str | None = None
    """Tier of TextGrids that holds the words; when not given, the one named word or words."""
    metadata: str | None = None
    """vox2_meta.csv, as given or relative to the root; adds each speaker's gender to `source`."""
    landmarks: str | None = None
    """Folder of OpenFace's csv files, `[<set>/]<speaker>/<video>/<clip>.csv`, as given or relative to the root."""
    face_tracks: bool = False
    """Put the txt files into the samples as track.txt, and what their headers say into `source`. Every file is opened
    when the corpus is listed."""

    def clips(self) -> Iterator[RawClip]:
        """All clips by key; `source` has set, video, clip and, with metadata, gender; with face tracks also
        reference, offset, fv_conf and asd_conf.

        Raises:
            UserError: nothing in this layout under the root, an unreadable folder, or bad transcripts, metadata, face
                tracks or names of landmark files.
        """
        root = Path(self.root)
        genders = self._genders(root)
        files = _scan(root)
        clips = []
        for key in sorted(files):
            speaker, video, clip = key.split("/")
            source = {"set": files[key]["set"], "video": video, "clip": clip}
            if speaker in genders:
                source["gender"] = genders[speaker]
            paths = {kind: Path(path) for kind, path in files[key].items() if kind != "set"}
            clips.append(_clip(key, speaker, source, paths))
        if self.landmarks is not None:
            where = given_or_below(self.landmarks, root)
            clips = attach_files(clips, "landmarks.csv", mirrored(where, ".csv", 3), where)
        if self.face_tracks:
            clips = _attach_tracks(clips, root)
        unknown, tier = self.allow_unknown_transcripts, self.words_tier
        yield from attach(clips, self.transcripts, root, allow_unknown=unknown, words_tier=tier)

    def _genders(self, root: Path) -> dict[str, str]:
        if self.metadata is None:
            return {}
        path = Path(self.metadata) if Path(self.metadata).is_file() else root / self.metadata
        try:
            with open_text(path, newline="") as lines:
                # the original has a blank after every field, in the header too
                rows = [{str(k).strip(): str(v).strip() for k, v in row.items()} for row in csv.DictReader(lines)]
        except OSError as error:
            raise UserError(f"{path}: the metadata cannot be read: {error.strerror}") from None
        except csv.Error:
            rows = []
        if not rows or not {"VoxCeleb2 ID", "Gender"} <= rows[0].keys():
            raise UserError(f"{path}: expected a csv file with the columns 'VoxCeleb2 ID' and 'Gender'")
        return {row["VoxCeleb2 ID"]: row["Gender"] for row in rows}


def _clip(key: str, speaker: str, source: dict[str, str], paths: dict[str, Path]) -> RawClip:
    try:
        return RawClip(key=key, speaker=speaker, source=source, video=paths.get("video"), audio=paths.get("audio"))
    except ValueError as error:
        raise UserError(f"{next(iter(paths.values()))}: {error}; rename the file or folder") from None


def _attach_tracks(clips: list[RawClip], root: Path) -> list[RawClip]:
    tracks: dict[str, Path] = {}
    for folder in _sets(root):
        if (folder / "txt").is_dir():
            for key, path in mirrored(folder / "txt", ".txt", 3).items():
                if key in tracks:
                    raise UserError(f"{path}: the face track {key} is also at {tracks[key]}; keep one of them")
                tracks[key] = path
    attached = attach_files(clips, "track.txt", tracks, root / "[<set>]" / "txt")
    return [
        replace(clip, source=clip.source | read_header(clip.attachments["track.txt"]))
        if "track.txt" in clip.attachments
        else clip
        for clip in attached
    ]


def _sets(root: Path) -> list[Path]:
    try:
        return [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    except OSError as error:
        raise UserError(f"{root}: the folder cannot be listed: {error.strerror}") from None


def _scan(root: Path) -> dict[str, dict[str, str]]:
    """Key -> set, video and audio path."""
    files: dict[str, dict[str, str]] = {}
    for folder in _sets(root):
        for kind, name in _KINDS:
            below = find_files(folder / kind, (_SUFFIXES[kind],)) if (folder / kind).is_dir() else ()
            for path in below:
                if len(path.relative_to(folder).parts) != 4:
                    continue
                key = f"{path.parts[-3]}/{path.parts[-2]}/{path.stem}"
                entry = files.setdefault(key, {"set": "" if folder == root else folder.name})
                if name in entry:
                    raise UserError(f"{path}: the clip {key} is also at {entry[name]}; keep one of them")
                entry[name] = str(path)
    if not files:
        raise UserError(
            f"{root}: no clip; looked for [<set>/]mp4/<speaker>/<video>/<clip>.mp4 and "
            "[<set>/]aac/<speaker>/<video>/<clip>.m4a below it"
        )
    return files
