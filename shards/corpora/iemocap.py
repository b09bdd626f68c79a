"""IEMOCAP (Busso et al. 2008): ten actors in five sessions of two, scripted and improvised dialogues, by utterance.

    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt        times, labels and votes: the list of the utterances
    Session1/dialog/transcriptions/Ses01F_impro01.txt       Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
    Session1/dialog/avi/DivX/Ses01F_impro01.avi             both actors in one picture
    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
    Session1/sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg

The letter of the session tells who wears the markers (F: the woman), that of the utterance who speaks.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from shards.corpora import iemocap_evaluation
from shards.corpora.iemocap_evaluation import Evaluation
from shards.record import Cut, RawClip, Word
from shards.transcripts import sphinx_wdseg
from shards.transcripts.as_written import as_written
from shards.transcripts.spread import spread
from shards.words.words import spoken_form
from triptych.config import UserError
from triptych.text_files import read_text

logger = logging.getLogger(__name__)

PUBLISHED_EMOTIONS = {
    "undecided": 2507,
    "frustrated": 1849,
    "neutral": 1708,
    "angry": 1103,
    "sad": 1084,
    "excited": 1041,
    "happy": 595,
    "surprised": 107,
    "fearful": 40,
    "other": 3,
    "disgust": 2,
}
"""The 10,039 utterances with labels (tae898/multimodal-datasets, IEMOCAP/dataset-stats.md). Angry, happy with excited,
neutral and sad are the 5,531 of the four-class tables."""

WEARER, OTHER = (0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75)
"""Left, top, right, bottom: who wears the markers is on the left, the other one on the right, and two pictures of half
the size side by side leave black above and below (rows 120 to 360 of 480). So do two public preparations; no avi was at
hand to look: do so once, with `python -m shards show`."""

_UTTERANCE = re.compile(r"(Ses0[1-5])([FM])_((impro|script)\w+)_([FM])\d{3}")
_TRANSCRIBED = re.compile(r"(Ses0\w+) \[[^]]*\]:\s*(.*)")
_NOISE = re.compile(r"\[[^]]*\]")
_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class IemocapConfig:
    """IEMOCAP's full release."""

    root: str
    """Folder that holds Session1 to Session5; one may be missing."""
    picture: bool = True
    """The speaker's half of the dialogue's avi, cut at the utterance's times, beside the wav of the sentence. false:
    the wav alone, which published figures on speech use."""
    media: bool = True
    """false: labels and words alone, for who has no media."""

    def clips(self) -> Iterator[RawClip]:
        """Every utterance with labels: emotion, valence, activation, dominance (1 to 5). No media is opened.

        `source` has session, dialogue and video (the recording), scenario (the dialogue's name without session, as
        script01_1: the same text in all sessions), style (scripted, improvised), gender, markers (yes: the speaker
        wears them), votes and ratings (see `shards.corpora.iemocap_evaluation`), word_times where they are a guess.
        An utterance whose media are missing is unusable.

        Raises:
            UserError: no session in the root, or evaluations, transcriptions or alignments of another form.
        """
        root = Path(self.root)
        sessions = [path for number in range(1, 6) if (path := root / f"Session{number}").is_dir()]
        if not sessions:
            raise UserError(f"{root}: no session; expected the folders Session1 to Session5 of IEMOCAP_full_release")
        found = _Found()
        for session in sessions:
            for file in _listed(session / "dialog" / "EmoEvaluation"):
                texts = _transcriptions(session / "dialog" / "transcriptions" / file.name)
                for evaluation in iemocap_evaluation.read(file):
                    clip = self._clip(session, file.stem, evaluation, texts.pop(evaluation.utterance, None))
                    found.add(clip)
                    yield clip
                found.without_labels += len(texts)
        found.log(root)

    def _clip(self, session: Path, dialogue: str, evaluation: Evaluation, text: str | None) -> RawClip:
        match = _UTTERANCE.fullmatch(evaluation.utterance)
        if match is None or not evaluation.utterance.startswith(f"{dialogue}_"):
            raise UserError(
                f"{session}: {evaluation.utterance!r} in the evaluation of {dialogue}; expected a name like "
                f"{dialogue}_F000"
            )
        name, wearer, scenario, kind, letter = match.groups()
        source = {
            "session": name,
            "dialogue": dialogue,
            "video": dialogue,
            "scenario": scenario,
            "style": "scripted" if kind == "script" else "improvised",
            "gender": letter.lower(),
            "markers": "yes" if letter == wearer else "no",
            "votes": " ".join(evaluation.votes),
            "ratings": " ".join(evaluation.ratings),
        }
        aligned = session / "sentences" / "ForcedAlignment" / dialogue / f"{evaluation.utterance}.wdseg"
        duration_s = round(evaluation.end_s - evaluation.start_s, 6)
        words, written = _aligned(aligned), [] if text is None else _NOISE.sub(" ", text).split()
        if words is not None:
            words = as_written(words, written)
        elif text is not None:
            words = spread(" ".join(filter(spoken_form, written)), 0.0, duration_s)
            source["word_times"] = "spread"
        media = self._media(session, dialogue, evaluation, WEARER if letter == wearer else OTHER)
        return RawClip(
            key=evaluation.utterance,
            speaker=f"{name}{letter}",
            video=media.video,
            audio=media.audio,
            cut=media.cut,
            duration_s=None if self.media else duration_s,
            unusable=media.missing,
            words=words,
            source=source,
            labels={
                "emotion": evaluation.emotion,
                "valence": evaluation.valence,
                "activation": evaluation.activation,
                "dominance": evaluation.dominance,
            },
        )

    def _media(
        self, session: Path, dialogue: str, evaluation: Evaluation, box: tuple[float, float, float, float]
    ) -> "_Media":
        if not self.media:
            return _Media()
        media = _Media(audio=session / "sentences" / "wav" / dialogue / f"{evaluation.utterance}.wav")
        if self.picture:
            cut = Cut(start_s=evaluation.start_s, end_s=evaluation.end_s, box=box, sound=False)
            media = replace(media, video=session / "dialog" / "avi" / "DivX" / f"{dialogue}.avi", cut=cut)
        for path in (media.video, media.audio):
            if path is not None and not path.is_file():
                return _Media(missing=f"{path.relative_to(session.parent)} is missing")
        return media


@dataclass(frozen=True, kw_only=True)
class _Media:
    video: Path | None = None
    audio: Path | None = None
    cut: Cut | None = None
    missing: str | None = None


@dataclass
class _Found:
    """What was met, to be told beside what was published."""

    sessions: Counter[str] = field(default_factory=Counter)
    emotions: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    without_labels: int = 0

    def add(self, clip: RawClip) -> None:
        self.sessions[clip.source["session"]] += 1
        self.emotions[clip.labels["emotion"]] += 1
        self.words["without" if clip.words is None else clip.source.get("word_times", "aligned")] += 1
        if clip.unusable is not None:
            self.missing.append(clip.unusable)

    def log(self, root: Path) -> None:
        level = logging.INFO if self.emotions == PUBLISHED_EMOTIONS else logging.WARNING
        published = sum(PUBLISHED_EMOTIONS.values())
        told = ", ".join(f"{name} {self.emotions[name]} of {count}" for name, count in PUBLISHED_EMOTIONS.items())
        logger.log(level, "%s: %d of the %d published: %s", root, self.emotions.total(), published, told)
        logger.info("%s: %s", root, ", ".join(f"{name} {count}" for name, count in sorted(self.sessions.items())))
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(self.words.items()))
        unlabelled = self.without_labels
        logger.info("%s: word times: %s; %d transcribed utterances have no labels", root, told, unlabelled)
        if self.missing:
            files = sorted(set(self.missing))
            more = f" and {len(files) - _TOLD} more" if len(files) > _TOLD else ""
            logger.warning("%s: %d clips cannot be used: %s%s", root, len(self.missing), "; ".join(files[:_TOLD]), more)


def _listed(folder: Path) -> list[Path]:
    """The dialogues' files. The release also has files that start with ._, which macOS left, and folders beside."""
    try:
        files = sorted(path for path in folder.iterdir() if path.name.startswith("Ses") and path.suffix == ".txt")
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be listed: {error.strerror}") from None
    if not files:
        raise UserError(f"{folder}: no evaluation; expected files like Ses01F_impro01.txt")
    return files


def _aligned(path: Path) -> tuple[Word, ...] | None:
    """None where there is no alignment (two utterances of the release), or one that cannot be read."""
    if not path.is_file():
        return None
    try:
        return sphinx_wdseg.read(path)
    except UserError as error:  # one of ten thousand files, which nobody can repair, should not stop the rest
        logger.warning("%s; the utterance's word times are spread", error)
        return None


def _transcriptions(path: Path) -> dict[str, str]:
    """Utterance -> text. Lines of another form are remarks, or turns that nobody labelled."""
    try:
        lines = read_text(path, errors="replace").splitlines()
    except FileNotFoundError:
        logger.warning("%s: there is no such transcription", path)
        return {}
    except OSError as error:
        raise UserError(f"{path}: the transcription cannot be read: {error.strerror}") from None
    return {match[1]: match[2] for line in lines if (match := _TRANSCRIBED.match(line))}
