"""Fine-tuning over a text tower that gives its model's own <s>, as SSE-FT's RoBERTa does."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import FinetuneConfig
from finetune.heads.config import HeadConfig
from finetune.heads.linear import LinearConfig
from finetune.heads.sse_ft import SseFtHeadConfig
from finetune.train import run
from triptych.batch import fake_batch
from triptych.models import load
from triptych.models.blocks import TransformerConfig
from triptych.models.encoder import Encoder
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig, TextTowerConfig
from triptych.models.towers.text_encoder import TextEncoderConfig
from triptych.models.towers.transformer_towers import FrameTowerConfig
from triptych.training.optim import OptimizerConfig
from triptych.training.trainer import TrainerConfig


def save_roberta(folder: Path, words: tuple[str, ...]) -> None:
    """Untrained, of two layers; a piece a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    pieces = {piece: number for number, piece in enumerate((*names.values(), *words))}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(vocab_size=len(pieces), max_position_embeddings=20, type_vocab_size=1, **sizes)
    torch.manual_seed(0)
    model = RobertaModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))  # so that <s> tells of the words
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def build(moods: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Encoder]:
    """`build(cls)`: an encoder of the moods' words and sound, whose text begins with <s> or does not."""
    folder, like = tmp_path_factory.mktemp("roberta"), load.load(moods / "encoder")
    save_roberta(folder, like.words)

    def built(cls: bool) -> Encoder:
        tiny = TransformerConfig(width=8, layers=1, heads=2, feedforward=16, dropout=0.0)
        system = PairwiseConfig(
            width=8,
            text=TextTowerConfig(encoder=TextEncoderConfig(model=str(folder), cls=cls)),
            audio=AudioTowerConfig(frames=FrameTowerConfig(transformer=tiny)),
        )
        torch.manual_seed(0)
        encoder = load.build(load.SystemConfig(pairwise=system), like.inputs, like.words).eval()
        encoder.start()
        return encoder

    return built


def test_sse_ft_learns_from_it_and_reads_clips_that_lack_one_of_the_two(build, moods: Path, tmp_path: Path):
    load.save_encoder(build(True), tmp_path / "encoder")
    head = SseFtHeadConfig(self_attention_heads=2, inter_modal_heads=2, feedforward=16, dropout=0.0)
    trainer = TrainerConfig(max_steps=20, log_every=20, evaluate_every=10, checkpoint_every=20, keep_checkpoints=1)
    run(
        FinetuneConfig(
            encoder=str(tmp_path / "encoder"),
            shards=str(moods / "shards"),
            out=str(tmp_path / "out"),
            protocol="mosei_sentiment",
            head=HeadConfig(sse_ft=head),
            init=["frozen"],
            seeds=[0],
            global_batch=8,
            trainer=trainer,
            optimizer=OptimizerConfig(lr=0.01),
            num_resamples=20,
        )
    )
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    (frozen,) = (row["metrics"] for row in numbers["systems"] if row["system"] == "frozen")
    assert frozen["corr"]["value"] > 0.9
    left = {row["inputs"]: row["metrics"] for row in numbers["missing"]["systems"]}
    assert left["text"]["corr"]["value"] > 0.9  # of a clip with its words alone, the head reads <s> and no more
    assert left["audio"]["corr"]["value"] > 0.9
    (file,) = (tmp_path / "out" / "runs").glob("*/checkpoints/*/model.safetensors")
    own = "head.model.self_attention."
    assert {name.removeprefix(own).partition(".")[0] for name in load_file(file) if name.startswith(own)} == {"audio"}


def test_a_series_is_the_same_with_it_and_without(build):
    said = []
    for cls in (True, False):
        encoder = build(cls)
        batch = fake_batch(encoder.inputs, vocabulary_size=len(encoder.words), absent={"text": (1,)})
        batch = replace(batch, labels={"valence": torch.zeros(len(batch), 9)})
        torch.manual_seed(0)
        head = LinearConfig().build(encoder, ("text", "audio"), 1, 5.0).eval()
        with torch.no_grad():
            said.append(head(encoder.encode(batch), batch))
    assert said[0].shape == (4, 9, 1)
    torch.testing.assert_close(*said)
