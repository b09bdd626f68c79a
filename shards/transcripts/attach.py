"""Gives the clips of a corpus the words of its transcripts."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from shards.files import find_files
from shards.record import RawClip
from shards.transcripts import kaldi_ctm, recognised, textgrid, whisper_json
from shards.transcripts.transcript import Said
from triptych.config import UserError, nearest

logger = logging.getLogger(__name__)

ENDINGS = {
    ".ctm": "Kaldi CTM, all clips in one file",
    ".textgrid": "Praat TextGrid, a file a clip",
    ".json": "Whisper or WhisperX, a file a clip",
}
BAD = "transcripts that cannot be read; their clips are quarantined"
READERS = 16
"""Threads: a parallel file system takes milliseconds to open a file, and there may be a million."""
_AT_ONCE = 4096
"""Files that wait for a thread."""


def attach(
    clips: Sequence[RawClip], paths: Sequence[str], root: Path, *, allow_unknown: bool, words_tier: str | None = None
) -> list[RawClip]:
    """The clips with the words of the transcripts, and with their language in `source` where the format tells it.

    An utterance is a clip's key, or the key with '-' in place of '/' as Kaldi's VoxCeleb2 recipe writes it. That of a
    TextGrid or JSON file is the end of its path: <anything>/<key>.TextGrid.

    Args:
        clips: the whole corpus.
        paths: files, or folders with files at any depth, as given or relative to the root; the ending tells the format,
            see ENDINGS. Without any, no clip has words.
        root: the corpus' folder.
        allow_unknown: leave out utterances that are no clip of the corpus, as when only a part of it is there.
        words_tier: of TextGrids, see `shards.transcripts.textgrid.read`.

    Returns:
        The clips in their order; `words` is None where no transcript knows the clip. A clip whose transcript is bad is
        `unusable` for that reason, so that it is counted and told with others that cannot be read.

    Raises:
        UserError: half of a path's transcripts are bad, or it is of no known format; it has an utterance of no clip or
            one that another file has too, or no clip gets words.
    """
    if not paths:
        return list(clips)
    keys = {clip.key.replace("/", "-"): clip.key for clip in clips} | {clip.key: clip.key for clip in clips}
    found: dict[str, Said | UserError] = {}
    for path in (_find(name, root) for name in paths):
        counted, unknown, twice, total = Counter[str](), [], [], 0
        for utterance, said, file in _utterances(path, keys, words_tier):
            total += 1
            key = keys.get(utterance)
            if key is None:
                unknown.append(utterance)
            elif key in found:
                twice.append(f"{utterance} of {file}")
            else:
                found[key] = said
                counted.update(said.counted if isinstance(said, Said) else {BAD: 1})
        if unknown and not allow_unknown:
            raise UserError(
                f"{path}: {len(unknown)} of {total} utterances are no clip under {root}, first: "
                f"{', '.join(unknown[:3])}. Give the transcripts of this corpus, or set allow_unknown_transcripts: "
                "true to leave them out"
            )
        if twice:
            raise UserError(f"{path}: {len(twice)} utterances are in an earlier transcript too, first: {twice[0]}")
        if unknown:
            logger.warning("%s: %d utterances are no clip of the corpus and were left out", path, len(unknown))
        for kind, count in counted.items():
            logger.warning("%s: has %d %s", path, count, kind)
    if not any(isinstance(said, Said) and said.words for said in found.values()):
        raise UserError(
            f"{', '.join(paths)}: no clip under {root} has a word in these transcripts; utterances must be named like "
            f"{clips[0].key}"
        )
    return [_with(clip, found[clip.key]) if clip.key in found else replace(clip, words=None) for clip in clips]


def _with(clip: RawClip, said: Said | UserError) -> RawClip:
    if isinstance(said, UserError):
        return replace(clip, unusable=f"transcript: {said}")
    language = {} if said.language is None else {"language": said.language}
    return replace(clip, words=said.words, source=clip.source | language)


def _find(name: str, root: Path) -> Path:
    path = Path(name) if Path(name).exists() else root / name
    if not path.is_dir() and path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: no transcript by its ending.{nearest(path.suffix.lower(), ENDINGS)}")
    if not path.exists():
        raise UserError(f"{path}: the transcript cannot be read: there is no such file or folder")
    return path


def _utterances(path: Path, keys: dict[str, str], tier: str | None) -> Iterator[tuple[str, Said | UserError, Path]]:
    """Utterance, what it says or what is wrong with it, and its file.

    Raises:
        UserError: no transcript in the folder, or half of them are bad: the message counts them and tells the first.
    """
    files = sorted(find_files(path, ENDINGS)) if path.is_dir() else [path]
    if path.is_dir():
        recognised.check_complete(path)
    if not files:
        known = "; ".join(f"{ending}: {meaning}" for ending, meaning in ENDINGS.items())
        raise UserError(f"{path}: no transcript in this folder; looked for {known}")
    bad: list[UserError] = []
    console = Console(stderr=True)
    quiet = len(files) < 1000 or not console.is_terminal
    with ThreadPoolExecutor(min(READERS, len(files))) as pool:
        parts = (files[first : first + _AT_ONCE] for first in range(0, len(files), _AT_ONCE))
        results = (result for part in parts for result in pool.map(partial(_read, tier=tier), part))
        for file, result in zip(files, track(results, "transcripts", len(files), console=console, disable=quiet)):
            if not isinstance(result, Said | UserError):
                for name, said in result.items():
                    yield name, said, file
                continue
            if isinstance(result, UserError):
                bad.append(result)
            yield _utterance(file.relative_to(path) if path.is_dir() else Path(file.name), keys), result, file
    if bad and 2 * len(bad) >= len(files):
        first = "; ".join(map(str, bad[:3]))
        told = f"{path}: {len(bad)} of {len(files)} transcripts cannot be read. First: {first}"
        raise bad[0] if len(files) == 1 else UserError(told)


def _read(file: Path, tier: str | None) -> Mapping[str, Said | UserError] | Said | UserError:
    """A mistake is returned, so that a folder is read to its end and its bad files are told all at once."""
    try:
        match file.suffix.lower():
            case ".ctm":
                return recognised.with_language(file, kaldi_ctm.read(file))
            case ".textgrid":
                return textgrid.read(file, tier)
            case _:
                return whisper_json.read(file)
    except UserError as error:
        return error


def _utterance(file: Path, keys: dict[str, str]) -> str:
    """The longest end of a file's path, without its ending, that names a clip; the whole path where none does."""
    parts = file.with_suffix("").parts
    ends = ("/".join(parts[place:]) for place in range(len(parts)))
    return next((end for end in ends if end in keys), "/".join(parts))
