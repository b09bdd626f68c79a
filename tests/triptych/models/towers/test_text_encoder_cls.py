"""A text encoder's own CLS, in front of the words."""

import json
import shutil

import pytest
import torch
from text_models import SPECS, WORDS, by_hand, encoder_of, make, track

from triptych import config
from triptych.batch import Batch
from triptych.config import UserError
from triptych.models import load as door


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_models_own_cls_comes_before_the_words_in_every_layer(text_models, kind):
    words = ("zoo", "happy", "unhappy", "sad")
    batch, layers = track((), words, words[:1]), []
    encoder = make(text_models / kind, cls=True)
    vectors = encoder(batch, layers)
    assert encoder.steps(batch).int().tolist() == [[0] * 5, [1] * 5, [1, 1, 0, 0, 0]]
    assert torch.all(vectors[~encoder.steps(batch)] == 0)
    for number, layer in enumerate(layers):
        expected = by_hand(text_models / kind, words, number, cls=True)
        torch.testing.assert_close(layer.sequence[1], expected, rtol=0, atol=1e-6)
        assert torch.equal(layer.mask, encoder.steps(batch))
    assert torch.equal(vectors, layers[-1].sequence)
    assert torch.equal(vectors[:, 1:], make(text_models / kind)(batch))
    torch.testing.assert_close(vectors[2, :2], by_hand(text_models / kind, words[:1], cls=True), rtol=0, atol=1e-6)


def test_the_cls_is_that_of_a_clips_first_window_whatever_else_is_in_the_batch(text_models):
    """The first four words fill a window, see above."""
    long = ("zoo", "happy", "unhappy", "a", "sad", "zoo", "happy", "unhappy", "a", "sad", "zoo")
    vectors = make(text_models / "roberta", cls=True)(track(long, (), long[4:9], long))
    for clip, window in ((0, long[:4]), (2, long[4:9]), (3, long[:4])):
        expected = by_hand(text_models / "roberta", window, cls=True)[0]
        torch.testing.assert_close(vectors[clip, 0], expected, rtol=0, atol=1e-5)
    assert (vectors[0, 0] - vectors[2, 0]).abs().max() > 1e-3


def test_the_cls_tells_nothing_of_a_hidden_word(text_models):
    encoder = make(text_models / "roberta", cls=True)
    sentences = [("happy", word, "sad") for word in ("a", "unhappy", "zoo", "?")]
    hidden = [encoder(track(sentence, hidden=[(0, 1)])) for sentence in sentences]
    assert all(torch.equal(one, hidden[0]) for one in hidden)
    assert (encoder(track(sentences[0]))[0, 0] - hidden[0][0, 0]).abs().max() > 1e-3  # in sight, it matters to it


def test_trained_it_learns_from_its_cls_alone_and_takes_part_in_a_batch_without_words(text_models):
    encoder = make(text_models / "roberta", cls=True, train=True)
    for batch, learns in ((track(("happy", "zoo"), ()), True), (track((), ()), False)):
        encoder.zero_grad()
        encoder(batch)[:, 0].square().sum().backward()
        assert any(weight.grad.any() for weight in encoder.parameters() if weight.grad is not None) == learns


def tower_of(folder, **settings):
    """A whole encoder of the one tower."""
    system = {"pairwise": {"width": 0, "text": {"encoder": {"model": str(folder), **settings}}}}
    torch.manual_seed(1)
    encoder = door.build(config.load(door.SystemConfig, system), SPECS, WORDS).eval()
    encoder.start()
    return encoder


def test_an_encoder_with_it_says_so_pools_its_words_and_is_loaded_as_it_was_saved(text_models, tmp_path):
    batch = Batch(keys=("a", "b"), epochs=(0, 0), tracks={"text": track(("happy", "zoo"), ())})
    encoder, plain = tower_of(text_models / "roberta", cls=True), tower_of(text_models / "roberta")
    assert (encoder.modalities_with_cls, plain.modalities_with_cls) == (("text",), ())
    said = encoder.encode(batch, layers=True)
    assert said.present["text"].tolist() == [True, False]
    torch.testing.assert_close(said.pooled["text"], plain.encode(batch).pooled["text"])
    assert torch.equal(said.layers["text"][-1].sequence, said.towers["text"].sequence)
    assert said.towers["text"].mask.tolist() == [[True] * 3, [False] * 3]
    door.save_encoder(encoder, tmp_path / "encoder")
    loaded = door.load(tmp_path / "encoder")
    assert loaded.modalities_with_cls == ("text",)
    assert torch.equal(loaded.encode(batch).towers["text"].sequence, said.towers["text"].sequence)

    door.save_encoder(plain, tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    described = json.loads(file.read_text())
    del described["system"]["pairwise"]["text"]["encoder"]["cls"]  # as encoders were saved before there was one
    file.write_text(json.dumps(described))
    assert door.load(tmp_path / "old").modalities_with_cls == ()


def test_a_cls_that_no_step_is_there_for_is_refused(text_models, tmp_path):
    from tokenizers import Tokenizer, processors

    with pytest.raises(UserError, match=r"input\.text_encoder\.cls: every step here is a word"):
        encoder_of(text_models / "roberta", cls=True)
    folder = shutil.copytree(text_models / "bert", tmp_path / "bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"text_encoder\.cls: .*bert has no piece in front of a text"):
        tower_of(folder, cls=True)
