"""Gives the clips of a corpus the words of its transcripts."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shards.record import RawClip, Word
from shards.transcripts import kaldi_ctm
from triptych.config import UserError

logger = logging.getLogger(__name__)


def attach(clips: Sequence[RawClip], files: Sequence[str], root: Path, *, allow_unknown: bool) -> list[RawClip]:
    """The clips with the words of the transcripts.

    An utterance is a clip's key, or the key with '-' in place of '/' as Kaldi's VoxCeleb2 recipe writes it.

    Args:
        clips: the whole corpus.
        files: CTM files, as given or relative to the root. Without any, no clip has words.
        root: the corpus' folder.
        allow_unknown: leave out utterances that are no clip of the corpus, as when only a part of it is there.

    Returns:
        The clips in their order; `words` is None where no transcript knows the clip.

    Raises:
        UserError: a file is bad, has an utterance of no clip or one that another file has too, or no clip gets
            words.
    """
    if not files:
        return list(clips)
    keys = {clip.key.replace("/", "-"): clip.key for clip in clips} | {clip.key: clip.key for clip in clips}
    words: dict[str, tuple[Word, ...]] = {}
    for path in (_find(name, root) for name in files):
        transcript = kaldi_ctm.read(path)
        unknown = [utterance for utterance in transcript.words if utterance not in keys]
        if unknown and not allow_unknown:
            raise UserError(
                f"{path}: {len(unknown)} of {len(transcript.words)} utterances are no clip under {root}, first: "
                f"{', '.join(unknown[:3])}. Give the transcripts of this corpus, or set allow_unknown_transcripts: "
                "true to leave them out"
            )
        found = {keys[utterance]: said for utterance, said in transcript.words.items() if utterance in keys}
        if twice := sorted(words.keys() & found.keys()):
            raise UserError(f"{path}: {len(twice)} utterances are in an earlier transcript too, first: {twice[0]}")
        words |= found
        if unknown:
            logger.warning("%s: %d utterances are no clip of the corpus and were left out", path, len(unknown))
        if transcript.num_non_words:
            logger.warning("%s: %d tokens in <> or [] are no words and were left out", path, transcript.num_non_words)
    if not any(words.values()):
        raise UserError(
            f"{', '.join(files)}: no clip under {root} has a word in these transcripts; utterances must be named like "
            f"{clips[0].key}"
        )
    return [replace(clip, words=words.get(clip.key)) for clip in clips]


def _find(name: str, root: Path) -> Path:
    return Path(name) if Path(name).is_file() else root / name
