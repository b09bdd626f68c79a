"""What a generated clip says, when and in which mood: pure functions of (seed, key). No sound or picture here.

The sentences are made so that a hidden word can be predicted from what is seen and heard: a clip has one of four
emotions, a share of its content words belongs to that emotion, and the same emotion shapes face and voice.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from shards.record import Word

EMOTIONS = ("neutral", "happy", "sad", "angry")

EMOTION_WORDS = {
    "neutral": ("usual", "regular", "common", "typical", "plain", "average"),
    "happy": ("happy", "lovely", "sunny", "delight", "laugh", "wonderful"),
    "sad": ("sad", "lonely", "tears", "sorrow", "weep", "gone"),
    "angry": ("angry", "hate", "fury", "scream", "fight", "enough"),
}
"""Words at the same place of the four lists sound alike, as homophones do: the sound tells the place, and only the
mood, heard and seen, tells which of the four is meant. That is what makes predicting a hidden word teach emotion."""
FUNCTION_WORDS = ("the", "we", "and", "so", "now", "you")
CONTENT_WORDS = ("door", "river", "train", "music", "letter", "city", "coffee", "window")
_SOUNDS_LIKE = {
    word: EMOTION_WORDS["neutral"][place] for words in EMOTION_WORDS.values() for place, word in enumerate(words)
}

UNIFORM_WORDS = tuple(consonant + vowel for consonant in "smfk" for vowel in "aeiou")
"""Every pair of four consonants and five vowels: 20 words that differ in sound and mouth shape, and in nothing else."""

MARGIN_S = {"emotional": 0.0, "labelled": 0.0, "uniform": 0.13}
"""Quiet time at both ends of a word's interval. An AAC window spans 2048 samples (128 ms at 16 kHz), so that with
this margin not even the coding of a word reaches outside of its interval."""

_ANY_EMOTION = 0.06
"""Share of the content slots that take a word of any emotion: without it a single word would give the emotion away, and
neither face nor voice would be needed."""

_TEMPO = {"neutral": 1.0, "happy": 0.95, "sad": 1.12, "angry": 0.9}
_LETTERS = {"a": "a", "e": "e", "i": "i", "o": "o", "u": "u", "y": "i"}
for _phone, _letters in {"m": "mbp", "f": "fvw", "s": "szcx", "t": "tdn", "l": "lr", "k": "kgqhj"}.items():
    _LETTERS |= dict.fromkeys(_letters, _phone)


@dataclass(frozen=True, kw_only=True)
class Script:
    """One clip before it is drawn and spoken."""

    words: tuple[Word, ...]
    duration_s: float
    margin_s: float
    emotion: str
    """One of EMOTIONS; "neutral" for the uniform kind, which has none."""
    intensity: float
    """How strongly the emotion shows, 0 to 1."""


def rng(seed: int, *names: object) -> np.random.Generator:
    """The generator that belongs to these names, the same on every machine."""
    text = "/".join(str(name) for name in (seed, *names))
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


def phones(word: str) -> tuple[str, ...]:
    """At most four pseudo-phones of a word: its letters by place of articulation, doubles merged."""
    spoken = [_LETTERS[letter] for letter in _SOUNDS_LIKE.get(word, word)]
    merged = [phone for index, phone in enumerate(spoken) if index == 0 or phone != spoken[index - 1]]
    return tuple(merged[:4])


def script(seed: int, key: str, kind: str, emotion: str | None = None, emotion_words: float = 0.5) -> Script:
    """What happens in a clip.

    Args:
        seed: of the corpus.
        key: of the clip.
        kind: "emotional", "labelled" or "uniform".
        emotion: one of EMOTIONS, or None to draw it.
        emotion_words: share of the content words that belong to the emotion.
    """
    generator = rng(seed, "script", key)
    if kind == "uniform":
        return _uniform(generator)
    drawn = EMOTIONS[generator.integers(len(EMOTIONS))]
    emotion = emotion or drawn
    intensity = float(generator.uniform(0.7, 1.0))
    tempo = (1 + (_TEMPO[emotion] - 1) * intensity) * generator.lognormal(0, 0.1)
    now_s = generator.uniform(0.08, 0.2)
    words = []
    for text in _sentence(generator, emotion, emotion_words):
        duration_s = (0.12 + 0.05 * len(phones(text))) * tempo * generator.lognormal(0, 0.1)
        words.append(_word(text, now_s, now_s + duration_s))
        pause_s = generator.uniform(0.15, 0.3) if generator.random() < 0.15 else generator.uniform(0.02, 0.1)
        now_s = words[-1].end_s + pause_s * tempo
    return Script(
        words=tuple(words),
        duration_s=_whole_frames(now_s + generator.uniform(0.02, 0.1)),
        margin_s=MARGIN_S[kind],
        emotion=emotion,
        intensity=intensity,
    )


def _sentence(generator: np.random.Generator, emotion: str, emotion_words: float) -> list[str]:
    """Five to seven words; function and content words take turns, with some content words in a row."""
    words: list[str] = []
    for slot in range(generator.integers(5, 8)):
        draw = generator.random()
        if slot % 2 == 0 and generator.random() < 0.5:
            source: tuple[str, ...] = FUNCTION_WORDS
        elif draw < emotion_words:
            source = EMOTION_WORDS[emotion]
        elif draw < emotion_words + _ANY_EMOTION:
            source = EMOTION_WORDS[EMOTIONS[generator.integers(len(EMOTIONS))]]
        else:
            source = CONTENT_WORDS
        words.append(source[generator.integers(len(source))])
    return words


def _uniform(generator: np.random.Generator) -> Script:
    """Six words whose identities, lengths and gaps are all drawn independently: nothing tells a hidden word."""
    texts = generator.integers(len(UNIFORM_WORDS), size=6)
    durations = generator.uniform(0.46, 0.6, size=6)
    gaps = generator.uniform(0.12, 0.24, size=7)
    words = []
    now_s = 0.0
    for text, gap_s, duration_s in zip(texts, gaps, durations):
        words.append(_word(UNIFORM_WORDS[text], now_s + gap_s, now_s + gap_s + duration_s))
        now_s = words[-1].end_s
    margin_s = MARGIN_S["uniform"]
    duration_s = _whole_frames(now_s + gaps[-1])
    return Script(words=tuple(words), duration_s=duration_s, margin_s=margin_s, emotion="neutral", intensity=0.0)


def _word(text: str, start_s: float, end_s: float) -> Word:
    """A word on the 10 ms grid of a Kaldi CTM, so that the transcript tells the exact times."""
    return Word(text=text, start_s=round(start_s, 2), end_s=round(end_s, 2), confidence=1.0)


def _whole_frames(seconds: float) -> float:
    return float(np.ceil(seconds * 25) / 25)
