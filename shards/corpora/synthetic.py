"""A generated corpus of talking clips: real mp4 and m4a files in the layouts of VoxCeleb2 and RAVDESS.

It needs no download, so that every command can be tried in minutes, and its truth is known. Three kinds:

    emotional   unlabelled, in VoxCeleb2's layout; words, voice and face share a hidden emotion
    labelled    in RAVDESS's naming, the emotion in the file name; other speakers
    uniform     in VoxCeleb2's layout; independent, uniform words and nothing that tells a hidden one, for an exact
                test of masking: with text, sound and picture hidden, no model can beat ln(20) nats a word

`landmarks/` holds what OpenFace would find in each clip. Each clip is a pure function of (seed, key).
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from shards.corpora.ravdess import RavdessConfig
from shards.corpora.synthetic_landmarks import openface_csv
from shards.corpora.synthetic_render import FRAME_PX, face, look, speaker_pitch_hz, voice, write_media
from shards.corpora.synthetic_script import EMOTIONS, Script, script
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.record import RawClip
from shards.writing.pool import end_with
from triptych.config import UserError
from triptych.refusals import move

MARKER = "synthetic.json"
"""Holds the config that made the folder."""

FILES = "media, transcripts, landmarks"
"""What a folder holds, as its marker says: one that an older version made, without landmarks, is refused."""
LANDMARKS = "landmarks"
"""Folder of the csv files."""

RAVDESS_CODES = {"neutral": 1, "happy": 3, "sad": 4, "angry": 5}

_CLIPS_PER_VIDEO = 5
_MOST_ACTORS, _MOST_REPETITIONS = 24, 99  # actors as in RAVDESS; a repetition has two digits


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """A generated corpus."""

    root: str
    """Folder of the raw files; generated when it is not there."""
    kind: Literal["emotional", "labelled", "uniform"] = "emotional"
    num_clips: int = 640
    num_speakers: int = 64
    emotion_words: float = 0.5
    """Share of the content words that belong to the clip's emotion; the uniform kind has none."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_speakers <= self.num_clips:
            raise ValueError(f"num_speakers: {self.num_speakers} speakers for {self.num_clips} clips")
        if not 0 <= self.emotion_words <= 0.8:
            raise ValueError(f"emotion_words: {self.emotion_words}; expected 0 to 0.8")
        if self.kind != "labelled":
            return
        if self.num_speakers > _MOST_ACTORS:
            raise ValueError(f"num_speakers: RAVDESS's naming has {_MOST_ACTORS} actors, not {self.num_speakers}")
        if self.num_clips > _MOST_REPETITIONS * self.num_speakers:
            raise ValueError(f"num_clips: at most {_MOST_REPETITIONS * self.num_speakers} for these speakers")

    def clips(self) -> Iterator[RawClip]:
        """All clips, generated first where the folder is not there.

        Raises:
            UserError: the folder holds something else.
        """
        root = generate(self)
        transcripts, landmarks = [str(root / "transcripts.ctm")], str(root / LANDMARKS)
        corpus: RavdessConfig | VoxCeleb2Config
        if self.kind == "labelled":
            corpus = RavdessConfig(root=str(root), transcripts=transcripts, landmarks=landmarks)
        else:
            metadata = str(root / "vox2_meta.csv")
            corpus = VoxCeleb2Config(root=str(root), transcripts=transcripts, metadata=metadata, landmarks=landmarks)
        yield from corpus.clips()


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """One clip to make: what it is called and where its files go."""

    key: str
    speaker: str
    script: Script
    video: str
    audio: str | None

    @property
    def landmarks(self) -> str:
        return f"{LANDMARKS}/{self.key}.csv"


def generate(config: SyntheticConfig) -> Path:
    """Make the raw files, in parallel, unless they are there.

    The folder appears whole or not at all: it is written beside its place and then renamed.

    Returns:
        The folder, with `transcripts.ctm`, `synthetic.json`, `landmarks/` and the media files.

    Raises:
        UserError: the folder exists and was not generated from this config, or cannot be made.
    """
    root = Path(config.root)
    if _is_complete(root, config):
        return root
    clips = _labelled_clips(config) if config.kind == "labelled" else _vox2_clips(config)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"corpus.synthetic.root: {root.parent} cannot be written: {error.strerror}") from None
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
        folder = Path(scratch) / root.name
        _write_clips(folder, clips, config)
        (folder / "transcripts.ctm").write_text("".join(_ctm_lines(clips)))
        if config.kind != "labelled":
            (folder / "vox2_meta.csv").write_text(_meta(config, clips))
        (folder / MARKER).write_text(json.dumps(_identity(config), indent=2) + "\n")
        try:
            move(folder, root)
        except OSError:  # another process was faster; its clips are the same
            if not _is_complete(root, config):
                raise
    return root


def _identity(config: SyntheticConfig) -> dict[str, str | int]:
    """What the files depend on: everything but where they lie."""
    identity = dataclasses.asdict(config)
    del identity["root"]
    return {**identity, "files": FILES}


def _is_complete(root: Path, config: SyntheticConfig) -> bool:
    if not root.is_dir() or not any(root.iterdir()):
        return False
    try:
        there = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        raise UserError(
            f"corpus.synthetic.root: {root} is not empty and holds no generated corpus; give a folder of its own"
        ) from None
    wanted = _identity(config)
    if there != wanted:
        differing = ", ".join(
            f"{name} {there.get(name)!r} (now {value!r})" for name, value in wanted.items() if there.get(name) != value
        )
        raise UserError(
            f"corpus.synthetic.root: {root} was generated with {differing}; give another folder or delete it"
        )
    return True


def _vox2_clips(config: SyntheticConfig) -> list[_Clip]:
    clips = []
    for index in range(config.num_clips):
        speaker = f"id{10_001 + index % config.num_speakers:05d}"
        video, clip = divmod(index // config.num_speakers, _CLIPS_PER_VIDEO)
        key = f"{speaker}/{speaker}v{video:03d}/{clip + 1:05d}"  # video ids are unique in the corpus, as YouTube's
        made = _Clip(
            key=key,
            speaker=speaker,
            script=script(config.seed, key, config.kind, None, config.emotion_words),
            video=f"dev/mp4/{key}.mp4",
            audio=f"dev/aac/{key}.m4a",
        )
        clips.append(made)
    return sorted(clips, key=lambda clip: clip.key)


def _labelled_clips(config: SyntheticConfig) -> list[_Clip]:
    """Clips named `modality-channel-emotion-intensity-statement-repetition-actor`; emotions balanced over actors."""
    clips = []
    for index in range(config.num_clips):
        repetition, actor = divmod(index, config.num_speakers)
        emotion = EMOTIONS[(repetition + actor) % len(EMOTIONS)]
        drawn = script(config.seed, f"actor{actor}/{repetition}", "labelled", emotion, config.emotion_words)
        strong = emotion != "neutral" and drawn.intensity > 0.8  # RAVDESS has no strong neutral
        codes = (1, 1, RAVDESS_CODES[emotion], 1 + strong, 1 + repetition % 2, 1 + repetition, 1 + actor)
        name = "-".join(f"{code:02d}" for code in codes)
        folder = f"Actor_{1 + actor:02d}"
        clips.append(_Clip(key=name, speaker=folder, script=drawn, video=f"{folder}/{name}.mp4", audio=None))
    return clips


def _write_clips(folder: Path, clips: list[_Clip], config: SyntheticConfig) -> None:
    files = [file for clip in clips for file in (clip.video, clip.audio, clip.landmarks) if file is not None]
    for parent in {(folder / file).parent for file in files}:
        parent.mkdir(parents=True)
    make = partial(_write_clip, folder, config.kind, config.seed)
    workers = min(len(os.sched_getaffinity(0)), len(clips) // 16)
    quiet = not Console().is_terminal
    if workers < 2:
        for clip in track(clips, "drawing and speaking", disable=quiet):
            make(clip)
        return
    # Spawned: forking a process that has loaded torch or CUDA is not safe.
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)  # generating children end with this process, however it ends
    with writer, ProcessPoolExecutor(workers, mp_context=context, initializer=end_with, initargs=(reader,)) as pool:
        done = pool.map(make, clips, chunksize=8)
        for _ in track(done, "drawing and speaking", total=len(clips), disable=quiet):
            pass


def _write_clip(folder: Path, kind: str, seed: int, clip: _Clip) -> None:
    seen, size_px = look(clip.script, seed, clip.speaker, clip.key), FRAME_PX[kind]
    samples = voice(clip.script, seed, clip.speaker, clip.key)
    audio = None if clip.audio is None else folder / clip.audio
    write_media(face(seen, size_px), samples, folder / clip.video, audio, independent=kind == "uniform")
    (folder / clip.landmarks).write_text(openface_csv(seen, size_px))


def _ctm_lines(clips: list[_Clip]) -> Iterator[str]:
    """Kaldi CTM: utterance, channel, start, duration, word, confidence."""
    for clip in clips:
        for word in clip.script.words:
            yield f"{clip.key} 1 {word.start_s:.2f} {word.end_s - word.start_s:.2f} {word.text} 1.00\n"


def _meta(config: SyntheticConfig, clips: list[_Clip]) -> str:
    """The speaker table as VoxCeleb2 writes it, trailing blanks included."""
    lines = ["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \n"]
    for speaker in sorted({clip.speaker for clip in clips}):
        gender = "m" if speaker_pitch_hz(config.seed, speaker) < 150 else "f"
        lines.append(f"{speaker} ,n{speaker[2:]} ,{gender} ,dev \n")
    return "".join(lines)
