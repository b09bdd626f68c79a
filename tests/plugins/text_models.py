"""Tiny text encoders, made here and saved as published ones are; and what several of their tests build and compare."""

from pathlib import Path

import pytest
import torch

from triptych.batch import Track
from triptych.modalities import FeatureSpec

SPECIALS = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def wordpiece():
    """happy and sad are one piece, unhappy two, any other word one a letter."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [*SPECIALS["bert"], "happy", "sad", "un", "##happy", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS["bert"], strict=True))
    return tokenizer, {f"{name}_token": token for name, token in names.items()}


def byte_pairs():
    """The same, in bytes with a space before each word; sad is one piece only behind a space."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    happy = [("h", "a"), ("p", "p"), ("ha", "pp"), ("happ", "y"), ("Ġ", "happy")]
    merges = [*happy, ("s", "a"), ("sa", "d"), ("Ġ", "sad")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIALS["roberta"][:4], *alphabet, *("".join(pair) for pair in merges), "<mask>"]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), SPECIALS["roberta"], strict=True))
    return tokenizer, {f"{name}_token": token for name, token in names.items()}


def save(folder: Path, config, kind: str = "bert") -> Path:
    """A model of the config with weights drawn wide, so that its states differ, and a tokenizer, in a new folder."""
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer, names = wordpiece() if kind == "bert" else byte_pairs()
    config.vocab_size = tokenizer.get_vocab_size()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def save_model():
    """`save_model(folder, config, kind)`: see `save`."""
    return save


@pytest.fixture(scope="session")
def text_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `bert`, which takes 64 pieces, and `roberta`, which takes 16; two layers of width 16."""
    from transformers import BertConfig, RobertaConfig

    root = tmp_path_factory.mktemp("text_models")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    save(root / "bert", BertConfig(max_position_embeddings=64, **sizes))
    roberta = RobertaConfig(max_position_embeddings=18, pad_token_id=1, type_vocab_size=1, **sizes)
    save(root / "roberta", roberta, "roberta")
    return root


WORDS = ("happy", "sad", "unhappy", "zoo", "a")
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16", support_s=(0.0, 0.065)
    ),
}


def make(folder, **settings):
    """With the published weights."""
    from triptych.models.towers.text_encoder import TextEncoder, TextEncoderConfig

    torch.manual_seed(1)
    encoder = TextEncoder(TextEncoderConfig(model=str(folder), **settings), WORDS)
    encoder.start_weights()
    return encoder.eval()


def track(*clips, hidden=()):
    """Clips of words, padded to the longest; "?" is outside the vocabulary, `hidden` are (clip, word)."""
    longest = max(map(len, clips))
    ids = torch.zeros(len(clips), longest, dtype=torch.int64)
    mask, hide = torch.zeros(2, len(clips), longest, dtype=torch.bool)
    for clip, words in enumerate(clips):
        mask[clip, : len(words)] = True
        ids[clip, : len(words)] = torch.tensor([WORDS.index(w) + 1 if w in WORDS else 0 for w in words])
    for place in hidden:
        hide[place] = True
    return Track(values=ids, mask=mask, times=torch.zeros(*ids.shape, 2), hidden=hide if hidden else None)


def by_hand(folder, words, layer=-1, cls=False):
    """[T, W]: transformers' own tokenizer and model on the sentence, averaged over each word; the state of the piece in
    front of them with `cls`, [1 + T, W]."""
    from transformers import AutoModel, AutoTokenizer

    read = AutoTokenizer.from_pretrained(folder)(" " + " ".join(words), return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**read, output_hidden_states=True).hidden_states[layer][0]
    at = [-1 if word is None else word for word in read.word_ids()]
    assert at[0] == -1
    own = [states[:1]] if cls else []
    return torch.cat(
        [*own, *(states[torch.tensor(at) == word].mean(dim=0, keepdim=True) for word in range(len(words)))]
    )


def encoder_of(folder, **settings):
    """A cross-modal transformer whose words are read by it."""
    from triptych.models import load
    from triptych.models.blocks import TransformerConfig
    from triptych.models.cross_modal import CrossModalConfig
    from triptych.models.inputs import InputConfig
    from triptych.models.towers.text_encoder import TextEncoderConfig

    torch.manual_seed(2)
    config = CrossModalConfig(
        modalities=("text", "audio"),
        transformer=TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0),
        input=InputConfig(text_encoder=TextEncoderConfig(model=str(folder), **settings)),
    )
    encoder = load.build(load.SystemConfig(cross_modal=config), SPECS, WORDS)
    encoder.start()
    return encoder
