"""Word errors: as many as asked, of the kinds asked, the same at every reading."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from shards.features.config import AudioFeature, FeaturesConfig
from shards.features.lfbe import LfbeConfig
from shards.reading.index import ShardSet
from shards.reading.other_words import num_word_errors
from shards.reading.read import StreamConfig, TrainLoader
from shards.reading.word_errors import WordErrors, WordErrorsConfig
from shards.record import Word
from triptych.config import UserError

SOUND = FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=4)))
COUNTS = {f"w{rank}": 3000 // rank for rank in range(1, 1001)}  # Zipf's law
NUM_CLIPS = 1500


def corpus() -> dict[str, list[Word]]:
    """Clips of 1 to 20 words in their natural frequencies, with gaps between some."""
    generator = np.random.default_rng(0)
    chances = np.array(list(COUNTS.values())) / sum(COUNTS.values())
    clips = {}
    for number in range(NUM_CLIPS):
        texts = generator.choice(list(COUNTS), generator.integers(1, 21), p=chances)
        clips[f"clip{number}"] = [
            Word(str(text), place, place + 0.75 + 0.25 * (place % 2), 0.9) for place, text in enumerate(texts)
        ]
    return clips


def texts(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words]


@pytest.mark.parametrize("rate", [0.15, 0.3])
def test_the_word_error_rate_of_a_corpus_is_the_one_asked(rate: float) -> None:
    clips, errors = corpus(), WordErrors(WordErrorsConfig(rate=rate), COUNTS)
    wrong = sum(num_word_errors(texts(words), texts(errors(words, key))) for key, words in clips.items())
    num_words = sum(map(len, clips.values()))
    assert wrong / num_words == pytest.approx(rate, abs=0.012)  # 4 standard errors of 15,000 words are 0.012 to 0.015


def test_the_kinds_have_their_shares() -> None:
    clips = corpus()
    num_words = sum(map(len, clips.values()))

    def heard(**kinds: float) -> list[list[str]]:
        shares = {"substitutions": 0.0, "deletions": 0.0, "insertions": 0.0, **kinds}
        errors = WordErrors(WordErrorsConfig(rate=0.2, **shares), COUNTS)  # type: ignore[arg-type]
        return [texts(errors(words, key)) for key, words in clips.items()]

    true = [texts(words) for words in clips.values()]
    only = heard(substitutions=1.0)
    assert [len(words) for words in only] == [len(words) for words in true]
    differ = sum(a != b for one, other in zip(only, true, strict=True) for a, b in zip(one, other, strict=True))
    assert differ / num_words == pytest.approx(0.2, abs=0.015)  # so no word is taken for itself
    for kinds, sign in (({"deletions": 1.0}, -1), ({"insertions": 1.0}, 1)):
        grown = sum(map(len, heard(**kinds))) - num_words
        assert grown / num_words == pytest.approx(sign * 0.2, abs=0.015)
    both = heard(substitutions=0.5, deletions=0.5)
    assert 1 - sum(map(len, both)) / num_words == pytest.approx(0.1, abs=0.015)


def test_wrong_words_are_those_that_are_often_said() -> None:
    errors = WordErrors(WordErrorsConfig(rate=0.9, substitutions=1, deletions=0, insertions=0), COUNTS)
    unknown = [Word("never", place, place + 1) for place in range(20)]
    heard = Counter(text for number in range(500) for text in texts(errors(unknown, str(number))) if text != "never")
    assert heard["w1"] / heard.total() == pytest.approx(COUNTS["w1"] / sum(COUNTS.values()), abs=0.015)
    assert set(heard) <= set(COUNTS)
    assert len(heard) > 400


def test_errors_are_a_function_of_seed_and_key() -> None:
    words = [Word(f"w{place + 1}", place, place + 1) for place in range(30)]

    def heard(key: str, seed: int = 0) -> tuple[Word, ...]:
        return WordErrors(WordErrorsConfig(rate=0.5, seed=seed), COUNTS)(words, key)

    assert heard("a") == heard("a")
    assert len({heard("a"), heard("b"), heard("a", seed=1)}) == 3


def test_times_stay_in_order_and_inside_those_that_were_said() -> None:
    errors = WordErrors(WordErrorsConfig(rate=0.6), COUNTS)
    for key, words in corpus().items():
        heard = errors(words, key)
        edges = [edge for word in heard for edge in (word.start_s, word.end_s)]
        assert edges == sorted(edges)
        for word in heard:
            assert any(said.start_s <= word.start_s and word.end_s <= said.end_s for said in words)


def test_no_rate_is_no_change_and_no_words_stay_none() -> None:
    words = [Word("w1", 0.0, 1.0, 0.5), Word("Elsewhere", 1.0, 2.0)]
    assert WordErrors(WordErrorsConfig(rate=0.0), COUNTS)(words, "a") == tuple(words)
    assert WordErrors(WordErrorsConfig(rate=0.9), COUNTS)((), "a") == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.0}, "rate: 1.0; expected a share"),
        ({"rate": -0.1}, "rate: -0.1"),
        ({"rate": 0.1, "deletions": 0.5}, "add up to 1, and 0.6 \\+ 0.5 \\+ 0.15 = 1.25"),
        ({"rate": 0.1, "substitutions": 1.2, "deletions": -0.2, "insertions": 0.0}, "are shares of the errors"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordErrorsConfig(**settings)  # type: ignore[arg-type]


def test_one_word_cannot_be_mistaken() -> None:
    with pytest.raises(UserError, match="has 1 different words"):
        WordErrors(WordErrorsConfig(rate=0.1), {"only": 7})


def stream(folder: Path, **changes: object) -> StreamConfig:
    settings: dict[str, object] = {"word_errors": WordErrorsConfig(rate=0.4), **changes}
    return StreamConfig(shards=str(folder), features=SOUND, global_batch=6, micro_batch=3, **settings)  # type: ignore[arg-type]


def read(folder: Path, epochs: int = 1, **changes: object) -> dict[tuple[str, int], tuple[list[int], int]]:
    """(key, epoch) -> word ids and number of sound steps."""
    shard_set = ShardSet(folder)
    loader = TrainLoader(
        shard_set, stream(folder, **changes), vocabulary=shard_set.vocabulary(), seed=1, rank=0, world=1
    )
    found = {}
    for batch in (batch for step in islice(loader.steps(0), 4 * epochs) for batch in step):
        text, sound = batch.tracks["text"], batch.tracks["audio"]
        for row, key in enumerate(batch.keys):
            ids = text.values[row][text.mask[row]].tolist()
            found[key, batch.epochs[row]] = (ids, int(sound.mask[row].sum()))
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_training_clips_have_the_same_errors_in_every_epoch(tiny_shards: Callable[..., Path], workers: int) -> None:
    folder = tiny_shards()
    clean = read(folder, word_errors=None)
    wrong = read(folder, epochs=2, workers=workers)
    twice = [key for key, epoch in wrong if epoch == 1 and (key, 0) in wrong]
    assert len(twice) > 10
    assert all(wrong[key, 0] == wrong[key, 1] for key in twice)
    changed = [key for key in clean if clean[key][0] != wrong[key][0]]
    assert 5 < len(changed) < len(clean)
    assert all(clean[key][1] == wrong[key][1] for key in clean)  # the sound is as it was


def test_errors_without_text_are_refused(tiny_shards: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="word_errors: text: false reads no words"):
        stream(tiny_shards(), text=False)
