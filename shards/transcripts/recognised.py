"""What `python -m shards transcribe` writes: for each chunk of clips a Kaldi CTM with the words, and facts beside it.

    000012.ctm           <key> 1 <start s> <duration s> <word> <confidence>; a clip without words has one `<silence>`
    000012.clips.jsonl   first the chunk's settings, then one object a clip:
                         {"key": ..., "seconds": ..., "words": 21, "confidence": 0.93, "log_likelihood": -0.11,
                          "language": "en", "language_probability": 0.99}   or   {"key": ..., "failed": "<reason>"}

`confidence` is the mean of the words', `log_likelihood` the mean log-probability of a token; both are null without
words. `language` is null where the model does not tell languages apart. The second file is written last: a chunk
without it is not finished. No torch.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from shards.record import Word
from shards.transcripts.transcript import Said
from triptych.config import UserError
from triptych.files import write_atomically
from triptych.text_files import open_text

SILENCE = "<silence>"
"""Marks a clip that was listened to and has no words; readers of CTM take it for a mark, not a word."""
NOTED = "made_by"
"""The setting that may differ: the model's name, which says nothing that its weights do not say better."""
_FACTS = ".clips.jsonl"


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """What is known of a clip besides its words."""

    key: str
    seconds: float = 0.0
    words: int = 0
    confidence: float | None = None
    log_likelihood: float | None = None
    language: str | None = None
    language_probability: float | None = None
    failed: str | None = None
    """Why the clip has no transcript; the fields above are then empty."""


@dataclass(frozen=True)
class Recognised:
    """A finished folder."""

    ctm: tuple[Path, ...]
    """Files with the words, in order."""
    clips: dict[str, ClipFacts]
    """Key -> facts, of every clip of the corpus."""


def with_language(ctm: Path, said: Mapping[str, Said | UserError]) -> dict[str, Said | UserError]:
    """What a CTM file says, with the clips' languages where there are facts beside it.

    Raises:
        UserError: the facts are damaged.
    """
    path = ctm.with_suffix(_FACTS)
    languages = {clip.key: clip.language for clip in _read_facts(path)} if path.is_file() else {}
    return {
        key: replace(clip, language=languages.get(key)) if isinstance(clip, Said) else clip
        for key, clip in said.items()
    }


def read(folder: Path) -> Recognised:
    """Read the facts of all clips; the words are read from the CTM files.

    Raises:
        UserError: the folder has none of these files, chunks are missing or made with different settings, or a file is
            damaged.
    """
    numbers = check_complete(folder)
    if not numbers:
        raise UserError(f"{folder}: nothing that python -m shards transcribe has written")
    clips: dict[str, ClipFacts] = {}
    for number in numbers:
        clips |= {clip.key: clip for clip in _read_facts(_path(folder, number, _FACTS))}
    return Recognised(tuple(_path(folder, number, ".ctm") for number in numbers), clips)


def check_complete(folder: Path) -> list[int]:
    """The numbers of a folder's chunks: all of them, or none in a folder of other transcripts.

    Raises:
        UserError: chunks are missing or made with different settings, or a file is damaged.
    """
    settings = settings_of_chunks(folder)
    if not settings:
        return []
    first = settings[min(settings)]
    for number, others in settings.items():
        check_same(folder, number, others, first)
    missing = [number for number in range(first["chunks"]) if number not in settings]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {first['chunks']} chunks are not transcribed yet, first: {missing[0]:06d}; "
            "run the same transcribe command again, every part of it"
        )
    return sorted(settings)


def write_chunk(
    folder: Path,
    number: int,
    settings: Mapping[str, Any],
    clips: Iterable[ClipFacts],
    words: Mapping[str, Sequence[Word]],
) -> None:
    """Write a chunk, whole or not at all.

    Args:
        folder: that is there.
        number: of the chunk.
        settings: what must be equal in all chunks of the folder, except NOTED; `chunks` is how many there are.
        clips: in the order of the corpus.
        words: key -> words of each clip that did not fail.
    """
    clips = list(clips)
    lines = [line for clip in clips if clip.failed is None for line in _ctm_lines(clip, words[clip.key])]
    facts = [
        dict(settings),
        *({key: value for key, value in asdict(clip).items() if _says(clip, key)} for clip in clips),
    ]
    write_atomically(_path(folder, number, ".ctm"), "".join(lines))
    write_atomically(
        _path(folder, number, _FACTS), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in facts)
    )


def settings_of_chunks(folder: Path) -> dict[int, dict[str, Any]]:
    """Number -> settings of every finished chunk.

    Raises:
        UserError: a file is damaged.
    """
    numbers = [int(path.name.removesuffix(_FACTS)) for path in sorted(folder.glob("[0-9]*" + _FACTS))]
    return {
        number: _first_line(_path(folder, number, _FACTS))
        for number in numbers
        if _path(folder, number, ".ctm").is_file()
    }


def check_same(folder: Path, number: int, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a chunk that was made with other settings.

    Raises:
        UserError: names the settings that differ.
    """
    differ = [name for name in sorted({*there, *wanted} - {NOTED}) if there.get(name) != wanted.get(name)]
    if differ:
        told = ", ".join(f"{name} ({there.get(name)}, not {wanted.get(name)})" for name in differ)
        raise UserError(
            f"{_path(folder, number, _FACTS)}: made with another {told}. Words of two settings do not belong in one "
            "folder; give the same settings again, or another out=FOLDER"
        )


def _path(folder: Path, number: int, ending: str) -> Path:
    return folder / f"{number:06d}{ending}"


def _says(clip: ClipFacts, name: str) -> bool:
    """Failed clips say why, others do not mention it."""
    return name == "key" or (name == "failed") == (clip.failed is not None)


def _ctm_lines(clip: ClipFacts, words: Sequence[Word]) -> list[str]:
    if not words:
        return [f"{clip.key} 1 0.000 {clip.seconds:.3f} {SILENCE}\n"]
    lines = []
    for word in words:
        start_s, end_s = round(word.start_s, 3), round(word.end_s, 3)
        confidence = "" if word.confidence is None else f" {word.confidence:.4f}"
        lines.append(f"{clip.key} 1 {start_s:.3f} {end_s - start_s:.3f} {word.text}{confidence}\n")
    return lines


def _first_line(path: Path) -> dict[str, Any]:
    with open_text(path) as lines:
        return _object(path, 1, lines.readline())


def _read_facts(path: Path) -> list[ClipFacts]:
    known = {field.name for field in fields(ClipFacts)}
    clips = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            found = _object(path, number, line)
            if number > 1:
                if "key" not in found or not found.keys() <= known:
                    raise UserError(f"{path}:{number}: not the facts of a clip")
                clips.append(ClipFacts(**found))
    return clips


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}:{number}: damaged; delete the file and run the same transcribe command again")
    return found
