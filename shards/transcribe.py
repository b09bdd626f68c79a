"""Raw corpus -> word times by a speech recogniser, for a corpus without transcripts.

python -m shards transcribe voxceleb2 corpus.voxceleb2.root=FOLDER model=FOLDER_OR_HUB_NAME out=FOLDER

The model is a CTC model (Wav2Vec2, HuBERT, WavLM ... ForCTC) or Whisper, in transformers' format. Whisper also tells
the language of each clip. A CTC model is faster, and its times are good to one step (20 ms).

The folder gets, for each chunk of clips, 000012.ctm (the words) and 000012.clips.jsonl (language, confidence and
likelihood of each clip, or why it failed). Give the folder to the writer, which refuses it while chunks are missing:

python -m shards write voxceleb2 corpus.voxceleb2.transcripts=[FOLDER] keep.language=[en] min_confidence=0.6 ...

part=3/40 does the third of forty shares (1/40 ... 40/40), for a Slurm array. Killed at any moment, the same command
goes on with the chunks that are missing. Clips longer than window_s are cut in pauses. Silence has no words. A clip
that cannot be decoded has no transcript and is named with its reason.
"""

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from shards.asr.recogniser import Heard, Recogniser, most_likely, recognise
from shards.asr.sounds import Sound, decoded_chunks, decoder
from shards.corpora.config import CorpusConfig
from shards.progress import progress
from shards.record import RawClip, Word
from shards.transcripts.recognised import NOTED, ClipFacts, check_same, settings_of_chunks, write_chunk
from shards.writing.pool import Failure
from shards.writing.work_folder import locked, part_of
from triptych.config import UserError, chosen, find, load

_DEVICES = ("auto", "cpu", "cuda")
_DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    """What `python -m shards transcribe` does."""

    corpus: CorpusConfig
    out: str
    """Folder of the transcripts."""
    model: str
    """Folder, or name on the model hub, of a CTC or Whisper model."""
    revision: str | None = None
    """Commit or tag on the hub; without it the newest, which may be another one tomorrow."""
    language: str | None = None
    """Code of the language to write, for Whisper; as heard when not given. What is heard is noted in any case."""
    device: str = "auto"
    """auto: a GPU if there is one."""
    dtype: str = "auto"
    """auto: float16 on a GPU, else float32."""
    window_s: float = 30.0
    """Longer clips are cut, in pauses; Whisper's own 30 s are the most that it takes."""
    batch_seconds: float = 240.0
    """Sound in one batch, padding included (Whisper pads every window to 30 s); a matter of memory and speed only."""
    clips_per_chunk: int = 1000
    """Clips between two savings; their sound is in memory, and that of the next ones (8 s clips: 0.5 MB each)."""
    part: str | None = None
    """i/n: the i-th of n shares, for as many processes at once; all when not given."""
    workers: int | None = None
    """Child processes that decode sound; as many as the cores this process may use when not given."""
    timeout_s: float = 60.0
    """For decoding one clip."""
    max_failed_share: float = 0.01
    """More undecodable clips than this share stop the work: then something else is wrong than a few files."""

    def __post_init__(self) -> None:
        for name, choices in (("device", _DEVICES), ("dtype", _DTYPES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {getattr(self, name)}; expected one of {', '.join(choices)}")
        if self.window_s < 1:
            raise ValueError(f"window_s: {self.window_s:g}; expected 1 or more")
        for name in ("batch_seconds", "clips_per_chunk", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)}; expected more than 0")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers: {self.workers}; expected 1 or more")
        if not 0 <= self.max_failed_share <= 1:
            raise ValueError(f"max_failed_share: {self.max_failed_share}; expected 0 to 1")
        part_of(self.part)


@dataclass
class Counts:
    """What became of the clips of one run; those of chunks that were there before are not in it."""

    clips: int = 0
    silent: int = 0
    words: int = 0
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    """Reason -> clips without a transcript."""
    languages: Counter[str] = field(default_factory=Counter)
    undecodable: int = 0
    chunks_before: int = 0

    def add(self, clip: ClipFacts, *, undecodable: bool) -> None:
        """Count one clip."""
        self.undecodable += undecodable
        self.clips += 1
        self.words += clip.words
        self.seconds += clip.seconds
        self.silent += clip.failed is None and clip.words == 0
        if clip.failed is not None:
            self.failed[clip.failed] += 1
        if clip.language is not None:
            self.languages[clip.language] += 1


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """`python -m shards transcribe CONFIG [a.b=c ...]`; returns the exit status, 0."""
    transcribe(load(TranscribeConfig, find(target, "transcribe"), overrides))
    return 0


def transcribe(config: TranscribeConfig) -> Counts:
    """Write the transcripts of this part's clips that are not there yet, and print what became of them.

    The words do not depend on the batches, the parts or kills, but for rounding on a GPU.

    Raises:
        UserError: nothing in the corpus; a model that cannot be loaded or is no recogniser; a folder with transcripts
            of other settings, or in use by the same part; more undecodable clips than `max_failed_share`.
    """
    name, corpus = chosen(config.corpus)
    clips = [clip for clip in corpus.clips() if clip.unusable is None]
    chunks = [clips[at : at + config.clips_per_chunk] for at in range(0, len(clips), config.clips_per_chunk)]
    from shards.asr.load import load as load_model  # torch and transformers, seconds: not for a mistake in the config

    model = load_model(config.model, config.revision, config.device, config.dtype, config.language)
    settings = {
        "corpus": name,
        "clips": len(clips),
        "keys": hashlib.sha256("\n".join(clip.key for clip in clips).encode()).hexdigest(),
        "chunks": len(chunks),
        "clips_per_chunk": config.clips_per_chunk,
        "weights": model.weights,
        "dtype": model.dtype,
        "language": config.language,
        "window_s": config.window_s,
        NOTED: {"model": config.model, "revision": config.revision},
    }
    out = Path(config.out)
    part, parts = part_of(config.part)
    with _locked(out, f".part-{part}-of-{parts}.lock"):
        there = _finished(out, settings)
        ours = range(part - 1, len(chunks), parts)
        todo = [number for number in ours if number not in there]
        counts = Counts(chunks_before=len(ours) - len(todo))
        started = time.monotonic()
        workers = config.workers or len(os.sched_getaffinity(0))
        pool = decoder(model.recogniser.rate_hz, workers, config.timeout_s)
        with (
            progress("transcribing", sum(len(chunks[number]) for number in todo)) as advance,
            closing(decoded_chunks([chunks[number] for number in todo], pool)) as sounds,
        ):
            for number, decoded in zip(todo, sounds):
                facts, words = _hear(chunks[number], decoded, model.recogniser, config, advance)
                for clip, sound in zip(facts, decoded):
                    counts.add(clip, undecodable=isinstance(sound, Failure))
                _check_failed(counts, sum(len(chunks[number]) for number in ours), config)
                write_chunk(out, number, settings, facts, words)
        finished = len(_finished(out, settings))
    _print(out, counts, time.monotonic() - started, model.device, (finished, len(chunks)))
    return counts


@contextmanager
def _locked(out: Path, name: str) -> Iterator[None]:
    """The folder, in which no other process does this part: both would write the same files."""
    lock = out / name
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None
    with file:
        if not locked(file):
            raise UserError(f"{out}: another process does this part; wait for it, or choose another part")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _finished(out: Path, settings: dict[str, Any]) -> set[int]:
    """Numbers of the chunks that are there, none of them with other settings."""
    there = settings_of_chunks(out)
    for number, found in there.items():
        check_same(out, number, found, settings)
    return set(there)


def _hear(
    clips: Sequence[RawClip],
    decoded: Sequence[Sound],
    recogniser: Recogniser,
    config: TranscribeConfig,
    advance: Callable[[int], None],
) -> tuple[list[ClipFacts], dict[str, tuple[Word, ...]]]:
    """Facts of each clip, and the words of those that did not fail."""
    sounds = {clip.key: sound for clip, sound in zip(clips, decoded, strict=True) if isinstance(sound, np.ndarray)}
    advance(len(clips) - len(sounds))
    import torch  # loaded with the model already

    try:
        said = recognise(list(sounds.values()), recogniser, config.window_s, config.batch_seconds, advance)
    except torch.OutOfMemoryError:
        raise UserError(
            f"batch_seconds: {config.batch_seconds:g}; more than the GPU's memory holds, take less"
        ) from None
    heard = dict(zip(sounds, said, strict=True))
    facts, words = [], {}
    for clip, sound in zip(clips, decoded, strict=True):
        if isinstance(sound, np.ndarray):
            fact = _facts(clip.key, len(sound) / recogniser.rate_hz, heard[clip.key])
        else:
            fact = ClipFacts(key=clip.key, failed="no sound" if sound is None else sound.reason)
        facts.append(fact)
        if fact.failed is None:
            words[clip.key] = heard[clip.key].words
    return facts, words


def _facts(key: str, seconds: float, heard: Heard) -> ClipFacts:
    if heard.failed is not None:
        return ClipFacts(key=key, failed=heard.failed)
    language = most_likely(heard.languages)
    probability = None if language is None else round(heard.languages[language], 4)
    confidences = [word.confidence for word in heard.words if word.confidence is not None]
    return ClipFacts(
        key=key,
        seconds=round(seconds, 3),
        words=len(heard.words),
        confidence=round(math.fsum(confidences) / len(confidences), 4) if confidences else None,
        log_likelihood=round(heard.log_probability / heard.num_tokens, 4) if heard.num_tokens else None,
        language=language,
        language_probability=probability,
    )


def _check_failed(counts: Counts, total: int, config: TranscribeConfig) -> None:
    if counts.undecodable <= config.max_failed_share * total:
        return
    first = "; ".join(f"{reason} ({number})" for reason, number in counts.failed.most_common(3))
    raise UserError(
        f"{counts.undecodable} clips cannot be decoded so far, over max_failed_share ({config.max_failed_share:g}) "
        f"of {total}. Reasons: {first}. Repair the files, or raise max_failed_share, and give the same command again"
    )


def _print(out: Path, counts: Counts, took_s: float, device: str, chunks: tuple[int, int]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    finished, total = chunks
    if counts.clips:
        speed = f"{counts.seconds / took_s:.0f} times as fast as speech, on {device}"
        console.print(f"{counts.clips} clips, {counts.seconds / 3600:.2f} h, {counts.words} words; {speed}")
        console.print(f"  silent: {counts.silent}; without a transcript: {counts.failed.total()}")
        for reason, number in counts.failed.most_common(10):
            console.print(f"    {number}  {reason}", markup=False)
    if counts.languages:
        told = ", ".join(f"{language} {number}" for language, number in counts.languages.most_common(10))
        console.print(f"  languages: {told}")
    if counts.chunks_before:
        console.print(f"{counts.chunks_before} chunks of this part were there already")
    console.print(f"{out}: {finished} of {total} chunks are there" + (", all" if finished == total else ""))
