"""A clip's text through a published tokenizer."""

import pickle

import numpy as np
import pytest

from shards.reading.collate import text_steps
from shards.record import Word
from shards.words.words import PieceVocabulary

TEXT = "Sad, unhappy Joey!! I'm so happy: naïve happy..."


def read(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return PieceVocabulary(tokenizer.backend_tokenizer.to_str()), tokenizer


def spoken(text: str) -> list[Word]:
    return [Word(word, number, number + 0.5) for number, word in enumerate(text.split())]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_pieces_are_those_of_transformers_for_the_whole_text(text_models, kind):
    vocabulary, tokenizer = read(text_models / kind)
    expected = tokenizer(TEXT, add_special_tokens=False)
    steps = text_steps(spoken(TEXT), vocabulary)
    assert steps.values.tolist() == expected["input_ids"]
    assert len(set(expected["input_ids"])) >= 6


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_pieces_of_a_word_share_its_time_by_their_letters(text_models, kind):
    vocabulary, _ = read(text_models / kind)
    ids, times = vocabulary.steps([Word("zoo", 1.0, 1.3), Word("happy", 2.0, 2.5)])
    assert len(ids) == 4
    np.testing.assert_allclose(times, [(1.0, 1.1), (1.1, 1.2), (1.2, 1.3), (2.0, 2.5)], atol=1e-9)
    times = np.array(vocabulary.steps(spoken(TEXT))[1])
    lengths = times[:, 1] - times[:, 0]
    assert lengths.min() > 0.02  # also of a piece that is a space, or a byte of a letter
    assert lengths.sum() == pytest.approx(0.5 * len(TEXT.split()))
    assert (times[1:, 0] >= times[:-1, 1] - 1e-9).all()


@pytest.mark.parametrize(("kind", "special"), [("bert", "[MASK]"), ("roberta", "</s>")])
def test_a_text_that_looks_like_a_special_token_is_none(text_models, kind, special):
    vocabulary, tokenizer = read(text_models / kind)
    number = tokenizer.convert_tokens_to_ids(special)
    assert number in tokenizer(special)["input_ids"]
    assert number not in vocabulary.steps([Word(special, 0.0, 1.0)])[0]


def test_a_text_that_has_no_piece_has_no_step(text_models):
    vocabulary, _ = read(text_models / "bert")
    for words in ([], [Word("\u3000", 0.0, 1.0)]):
        steps = text_steps(words, vocabulary)
        assert (steps.values.shape, steps.times.shape) == ((0,), (0, 2))


def test_saved_settings_that_cut_or_pad_are_not_used(text_models):
    from tokenizers import Tokenizer

    vocabulary, _ = read(text_models / "bert")
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    for words in (spoken("happy"), spoken(TEXT)):
        assert PieceVocabulary(tokenizer.to_str()).steps(words) == vocabulary.steps(words)


def test_it_travels_to_a_loader_worker(text_models):
    vocabulary, _ = read(text_models / "roberta")
    ids = vocabulary.steps(spoken(TEXT))
    again = pickle.loads(pickle.dumps(vocabulary))
    assert (again, again.steps(spoken(TEXT)), again.sha256) == (vocabulary, ids, vocabulary.sha256)
