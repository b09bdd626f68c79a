"""A published text encoder that reads the text as it is written, a vector a piece."""

import shutil
from pathlib import Path

import pytest
import torch
from text_models import SPECS, WORDS, encoder_of

from shards.features.words import PIECES
from shards.reading.encoders import vocabulary_of
from shards.record import Word
from triptych import config
from triptych.batch import Batch, Track
from triptych.config import UserError
from triptych.models import load as door

TEXT = "Sad, unhappy Zoo!"


def tower_of(folder: Path, **settings):
    """A whole encoder of the one tower."""
    system = {"pairwise": {"width": 0, "text": {"encoder": {"model": str(folder), "unit": "piece", **settings}}}}
    torch.manual_seed(1)
    encoder = door.build(config.load(door.SystemConfig, system), {"text": PIECES}, ()).eval()
    encoder.start()
    return encoder


def batch_of(encoder, *texts: str) -> Batch:
    """As the loader makes it, without times."""
    vocabulary = vocabulary_of(encoder, encoder.inputs)
    rows = [vocabulary.steps([Word(word, 0.0, 1.0) for word in text.split()])[0] for text in texts]
    longest = max(1, *map(len, rows))
    values = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    text = Track(values=values, mask=mask, times=torch.zeros(*mask.shape, 2))
    return Batch(keys=texts, epochs=(0,) * len(texts), tracks={"text": text})


def published(folder: Path, text: str, number: int = -1) -> torch.Tensor:
    """[1 + T, W]: what transformers' own tokenizer and model say of the whole text; not of the piece behind it."""
    from transformers import AutoModel, AutoTokenizer

    read = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**read, output_hidden_states=True).hidden_states
    return states[number][0, :-1]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("cls", [True, False])
def test_its_sequence_is_what_transformers_says_of_the_text(save_model, tmp_path, kind, cls):
    from transformers import BertConfig, RobertaConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    made = BertConfig(**sizes) if kind == "bert" else RobertaConfig(pad_token_id=1, type_vocab_size=1, **sizes)
    folder = save_model(tmp_path / kind, made, kind)
    encoder = tower_of(folder, cls=cls)
    said = encoder.encode(batch_of(encoder, "", TEXT, "Happy"), layers=True)
    assert said.present["text"].tolist() == [False, True, True]
    for number, layer in enumerate(said.layers["text"]):
        expected = published(folder, TEXT, number)[0 if cls else 1 :]
        assert layer.mask.sum(dim=1).tolist()[:2] == [0, len(expected)]
        torch.testing.assert_close(layer.sequence[1][: len(expected)], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(said.pooled["text"][1], published(folder, TEXT)[1:].mean(dim=0), rtol=0, atol=1e-5)
    other = encoder.encode(batch_of(encoder, TEXT.lower().replace("!", "")))
    assert (other.pooled["text"][0] - said.pooled["text"][1]).abs().max() > 1e-3  # neither case nor "!" is lost


def test_more_than_the_model_takes_is_read_in_windows(text_models):
    """RoBERTa here takes 14 pieces and its own two."""
    encoder = tower_of(text_models / "roberta")
    text = "happy sad " * 20
    ids = batch_of(encoder, text).tracks["text"].values[0].tolist()
    assert len(ids) > 28
    sequence = encoder.encode(batch_of(encoder, text)).towers["text"].sequence[0]
    model = encoder.towers["text"].encoder.model
    for start in range(0, len(ids), 14):
        part = ids[start : start + 14]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([[0, *part, 2]])).last_hidden_state[0, 1:-1]
        torch.testing.assert_close(sequence[start : start + 14], expected, rtol=0, atol=1e-5)


def test_it_is_loaded_as_it_was_saved_without_the_models_folder(text_models, tmp_path):
    shutil.copytree(text_models / "roberta", tmp_path / "roberta")
    encoder = tower_of(tmp_path / "roberta", cls=True)
    said = encoder.encode(batch_of(encoder, TEXT))
    door.save_encoder(encoder, tmp_path / "encoder")
    shutil.rmtree(tmp_path / "roberta")
    loaded = door.load(tmp_path / "encoder")
    assert loaded.inputs == {"text": PIECES}
    assert torch.equal(loaded.encode(batch_of(loaded, TEXT)).towers["text"].sequence, said.towers["text"].sequence)


def test_pretraining_which_hides_whole_words_does_not_take_it(text_models):
    with pytest.raises(UserError, match=r"input\.text_encoder\.unit: every step here is a word.*leave unit out"):
        encoder_of(text_models / "roberta", unit="piece")
    system = {"pairwise": {"text": {"encoder": {"model": str(text_models / "roberta"), "unit": "piece"}}}}
    with pytest.raises(UserError, match=r"text\.encoder\.unit: piece is for a published encoder"):
        door.build(config.load(door.SystemConfig, system), SPECS, WORDS)


def test_a_tokenizer_with_more_pieces_than_the_model_is_refused(text_models, tmp_path):
    from tokenizers import Tokenizer

    folder = shutil.copytree(text_models / "bert", tmp_path / "bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["joey"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=f"has a piece {size}, its model only {size}"):
        tower_of(folder)
