import shutil
from dataclasses import replace

import pytest
import torch
from text_models import SPECS, WORDS, by_hand, encoder_of, make, track

from pretrain.masking import MaskConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import PretrainTask
from triptych import config
from triptych.batch import Batch, fake_batch
from triptych.config import UserError
from triptych.models import load as door
from triptych.models.towers.text_encoder import TextEncoder, TextEncoderConfig
from triptych.training import optim


@pytest.mark.parametrize(("kind", "layer"), [("bert", -1), ("bert", 1), ("roberta", -1), ("roberta", -2)])
def test_a_words_vector_is_the_mean_of_its_pieces_as_transformers_gives_them(text_models, kind, layer):
    clips = [("zoo", "happy", "unhappy", "sad"), ("sad", "a")]
    vectors = make(text_models / kind, layer=layer)(track(*clips, ()))
    assert vectors.shape == (3, 4, 16)
    for clip, words in enumerate(clips):
        expected = by_hand(text_models / kind, words, layer)
        assert expected.std() > 0.1  # else anything would be close to it
        torch.testing.assert_close(vectors[clip, : len(words)], expected, rtol=0, atol=1e-5)
    assert torch.all(vectors[1, 2:] == 0)
    assert torch.all(vectors[2] == 0)


def test_every_layer_is_as_transformers_gives_it(text_models):
    layers = []
    make(text_models / "bert")(track(("zoo", "happy")), layers)
    for number, layer in enumerate(layers):
        expected = by_hand(text_models / "bert", ("zoo", "happy"), number)
        torch.testing.assert_close(layer.sequence[0], expected, rtol=0, atol=1e-5)


def test_a_word_outside_the_vocabulary_is_the_unknown_piece(text_models):
    vectors = make(text_models / "bert")(track(("happy", "?")))
    torch.testing.assert_close(vectors[0], by_hand(text_models / "bert", ("happy", "[UNK]")), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_nothing_tells_of_a_hidden_word(text_models, kind):
    """Neither its pieces nor their number: one, two, three, or the unknown word."""
    encoder = make(text_models / kind)
    sentences = [("happy", word, "sad") for word in ("a", "unhappy", "zoo", "?")]
    seen = [encoder(track(sentence)) for sentence in sentences]
    hidden = [encoder(track(sentence, hidden=[(0, 1)])) for sentence in sentences]
    assert all(torch.equal(one, hidden[0]) for one in hidden)
    assert all((one - hidden[0])[0, 0].abs().max() > 1e-3 for one in seen)  # in sight, it matters to its neighbours


def test_a_hidden_word_is_the_models_own_mask(text_models):
    vectors = make(text_models / "bert")(track(("happy", "zoo", "sad"), hidden=[(0, 1)]))
    expected = by_hand(text_models / "bert", ("happy", "[MASK]", "sad"))
    torch.testing.assert_close(vectors[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_clip_gives_the_same_vectors_in_any_batch(text_models, kind):
    encoder = make(text_models / kind)
    clip, long = ("happy", "zoo"), ("unhappy", "zoo", "zoo", "sad") * 4
    alone = encoder(track(clip))[0]
    batch = track(long, clip, (), hidden=[(0, 2)])
    batch.values[~batch.mask] = 3  # what lies in the padding is nobody's
    torch.testing.assert_close(encoder(batch)[1, :2], alone, rtol=0, atol=1e-5)


def test_a_long_clip_is_read_in_windows_of_whole_words(text_models):
    """The model takes 14 pieces and its own two; the longest word has four, so the stride is 11. The words have 4, 1,
    4, 2 and 1 pieces: the fifth begins at piece 11 and the tenth at piece 23."""
    words = ("zoo", "happy", "unhappy", "a", "sad", "zoo", "happy", "unhappy", "a", "sad", "zoo")
    vectors = make(text_models / "roberta")(track(words, words[:2]))
    expected = [by_hand(text_models / "roberta", window) for window in (words[:4], words[4:9], words[9:])]
    torch.testing.assert_close(vectors[0], torch.cat(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors[1, :2], by_hand(text_models / "roberta", words[:2]), rtol=0, atol=1e-5)


def test_no_window_is_longer_than_the_model_takes_and_none_leaves_a_piece_out(text_models):
    encoder = make(text_models / "roberta")
    lengths = []
    encoder.model.register_forward_pre_hook(
        lambda _, args, given: lengths.extend(given["attention_mask"].sum(1).tolist()), with_kwargs=True
    )
    for length in range(1, 40):
        lengths.clear()
        words = [WORDS[(7 * place * place + length) % len(WORDS)] for place in range(length)]
        assert encoder(track(words)).abs().sum(dim=-1).gt(0).all()
        assert max(lengths) <= 16
        pieces = sum(len(encoder.text_model.pieces[1 + WORDS.index(word)]) for word in words)
        assert sum(lengths) == pieces + 2 * len(lengths)


def test_a_word_longer_than_the_model_is_refused(text_models):
    with pytest.raises(UserError, match=r"'aaaaaaaaaaaaaaaaaaaa' has 21 pieces, .*roberta takes 14 at once"):
        TextEncoder(TextEncoderConfig(model=str(text_models / "roberta")), (*WORDS, "a" * 20))


def configs():
    from transformers import models

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    return {
        "albert": models.albert.AlbertConfig(embedding_size=8, **sizes),
        "deberta-v2": models.deberta_v2.DebertaV2Config(relative_attention=True, pos_att_type=["p2c", "c2p"], **sizes),
        "distilbert": models.distilbert.DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=24),
        "electra": models.electra.ElectraConfig(embedding_size=8, **sizes),
        "modernbert": models.modernbert.ModernBertConfig(pad_token_id=0, **sizes),
        "mpnet": models.mpnet.MPNetConfig(**sizes),
    }


@pytest.mark.parametrize("kind", ["albert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"])
def test_other_architectures_are_built_again_as_they_were_and_use_all_their_weights(save_model, tmp_path, kind):
    """ZeRO refuses weights without a gradient; two of three layers are kept."""
    encoder = make(save_model(tmp_path / kind, configs()[kind]), layer=2, train=True)
    shutil.rmtree(tmp_path / kind)
    again = TextEncoder(encoder.config, WORDS, type(encoder.text_model).from_json(encoder.text_model.to_json())).eval()
    again.load_state_dict(encoder.state_dict(), strict=True)
    sentence = track(("zoo", "happy", "unhappy"), ("sad",))
    vectors = again(sentence)
    assert torch.equal(vectors, encoder(sentence, layers := []))
    assert [layer.sequence.shape for layer in layers] == [vectors.shape] * 3
    vectors.square().sum().backward()
    assert [name for name, weight in again.named_parameters() if weight.grad is None] == []


def words_batch(**settings):
    return fake_batch(SPECS, vocabulary_size=len(WORDS), **settings)


@pytest.mark.parametrize("train", [False, True])
def test_a_saved_encoder_needs_nothing_of_the_model_that_it_came_from(text_models, tmp_path, train):
    shutil.copytree(text_models / "bert", tmp_path / "bert")
    encoder = encoder_of(tmp_path / "bert", train=train).eval()
    door.save_encoder(encoder, tmp_path / "encoder")
    shutil.rmtree(tmp_path / "bert")
    loaded = door.load(tmp_path / "encoder")
    expected = encoder.encode(words_batch())
    assert torch.equal(loaded.encode(words_batch()).pooled["fused"], expected.pooled["fused"])
    door.save_encoder(loaded, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "encoder" / "config.json").read_bytes()

    fresh = door.untrained(tmp_path / "encoder", seed=1)
    assert fresh.state_dict().keys() == loaded.state_dict().keys()
    assert not torch.allclose(fresh.encode(words_batch()).pooled["text"], expected.pooled["text"])

    path = tmp_path / "encoder" / "text_model.json"
    path.write_text(path.read_text().replace("6", "7"))
    for opened in (door.load, lambda folder: door.untrained(folder, seed=1)):
        with pytest.raises(UserError, match=r"text_model\.json: missing or damaged"):
            opened(tmp_path / "encoder")


@pytest.mark.parametrize("train", [False, True])
def test_masked_lm_trains_over_it_and_moves_its_weights_only_if_told(text_models, train):
    encoder = encoder_of(text_models / "bert", train=train)
    task = PretrainTask(encoder, {"masked_lm": MaskedLMConfig(mask=MaskConfig(rate=0.4)).build(encoder, seed=0)})
    before = {name: value.clone() for name, value in task.state_dict().items()}
    optimizer = optim.build(task, optim.OptimizerConfig(lr=1e-2))
    batch, losses = task.prepare(words_batch(num_clips=8)), []
    for _ in range(15):
        task.train()
        total = task(batch).losses["masked_lm"]
        losses.append(total.sum.item() / total.count)
        optimizer.zero_grad()
        total.sum.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    moved = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    of_model = {name for name in before if ".encoder.model." in name}
    assert of_model & moved == (of_model if train else set())
    assert moved >= before.keys() - of_model


def test_frozen_there_is_no_dropout_and_no_activation_is_kept(text_models):
    encoder = make(text_models / "bert").train()
    assert encoder.training
    sentence = track(("happy", "zoo"))
    assert torch.equal(encoder(sentence), encoder(sentence))
    assert not encoder(sentence).requires_grad
    trained = make(text_models / "bert", train=True).train()
    assert not torch.equal(trained(sentence), trained(sentence))


def test_activation_checkpointing_changes_no_gradient_and_keeps_less(text_models):
    kept, gradients = [], []
    for on in (False, True):
        encoder = make(text_models / "bert", train=True).train()
        encoder.activation_checkpointing = on
        assert encoder.activation_checkpointing == on
        saved = []
        torch.manual_seed(0)  # of the dropout
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x) or x, lambda x: x):
            loss = encoder(track(("happy", "zoo", "unhappy"), ("sad",))).square().sum()
        loss.backward()
        kept.append(len(saved))
        gradients.append([weight.grad for weight in encoder.parameters()])
    assert kept[1] < kept[0]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_a_batch_without_any_word_gives_zeros_and_still_takes_part(text_models):
    encoder = make(text_models / "bert", train=True)
    vectors = encoder(replace(track(("a",), ("a",)), mask=torch.zeros(2, 1).bool()))
    assert vectors.shape == (2, 1, 16)
    assert torch.all(vectors == 0)
    vectors.sum().backward()
    assert all(torch.all(weight.grad == 0) for weight in encoder.parameters())  # there, so that ranks can add it up


def test_weight_decay_spares_its_norms_biases_and_embeddings(text_models):
    encoder = make(text_models / "bert", train=True)
    names = {id(weight): name for name, weight in encoder.named_parameters()}
    decayed, spared = (
        {names[id(weight)] for weight in group["params"]} for group in optim.parameter_groups(encoder, 0.1)
    )
    assert all(name.endswith("weight") for name in decayed)
    assert any("query" in name for name in decayed)
    assert not any("embeddings" in name or "LayerNorm" in name for name in decayed)
    assert decayed | spared == set(names.values())


def test_mistakes_are_told_in_one_message(text_models, save_model, tmp_path):
    from transformers import AutoModel, GPT2Config

    def attempt(folder, message, **settings):
        with pytest.raises(UserError, match=message):
            encoder_of(folder, **settings)

    attempt(tmp_path / "nowhere", r"text_encoder\.model: .*nowhere is no folder here.*give the folder's path")
    attempt(text_models / "bert", r"text_encoder\.layer: 3; .* has 2 layers: 1 to 2, or -1 to -2", layer=3)
    attempt(text_models / "bert", r"text_encoder\.layer: 0;", layer=0)
    (tmp_path / "empty").mkdir()
    attempt(tmp_path / "empty", r"empty: its config and tokenizer cannot be loaded")

    pickled = shutil.copytree(text_models / "bert", tmp_path / "pickled")
    torch.save(AutoModel.from_pretrained(pickled).state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    attempt(pickled, r"pickled: its weights in safetensors cannot be loaded")

    partial = shutil.copytree(text_models / "bert", tmp_path / "partial")
    model = AutoModel.from_pretrained(partial)
    model.save_pretrained(partial, state_dict={k: v for k, v in model.state_dict().items() if "layer.1" not in k})
    attempt(partial, r"partial lacks \d+ weights of its own architecture, first: encoder\.layer\.1")

    generator = save_model(tmp_path / "gpt2", GPT2Config(n_embd=16, n_layer=1, n_head=2))
    tokenizer = generator / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace('"mask_token"', '"no_such_token"'))
    attempt(generator, r"gpt2 is a gpt2 model without \[MASK\]; expected an encoder")


@pytest.mark.slow
def test_a_run_over_it_is_resumed_to_the_last_bit_and_only_with_the_same_tokenizer(demo, text_models, tmp_path):
    folder = shutil.copytree(text_models / "bert", tmp_path / "bert")
    part = "encoder.cross_modal.input.text_encoder"
    settings = [f"{part}.model={folder}", f"{part}.train=true", "trainer.max_steps=8"]
    settings += ["objectives.masked_lm.evaluate=drawn"]
    done = demo.run(tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    whole, run = demo.logged(tmp_path), tmp_path / "run"

    shutil.rmtree(run / "checkpoints" / "step-00000008")
    shutil.rmtree(run / "encoder")
    (folder / "model.safetensors").unlink()  # what it gave is in the checkpoint
    done = demo.run(tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    assert "continuing after step 6" in done.stderr
    assert demo.logged(tmp_path) == whole

    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"##e"', '"##é"'))
    done = demo.run(tmp_path, *settings)
    assert done.returncode == 2
    assert "the run began with another model or tokenizer in text_encoder.model" in done.stderr

    shutil.rmtree(folder)
    assert "text" in door.load(run / "encoder").widths


def test_the_pairwise_tower_is_the_mean_of_the_words_mapped(text_models, tmp_path):
    system = {"pairwise": {"width": 6, "text": {"encoder": {"model": str(text_models / "bert")}}}}
    torch.manual_seed(1)
    encoder = door.build(config.load(door.SystemConfig, system), SPECS, WORDS).eval()
    encoder.start()
    batch = Batch(keys=("a", "b"), epochs=(0, 0), tracks={"text": track(("happy", "zoo"), ())})
    pooled = encoder.encode(batch).pooled["text"]
    expected = by_hand(text_models / "bert", ("happy", "zoo")).mean(dim=0)
    torch.testing.assert_close(pooled[0], encoder.towers["text"].output(expected), rtol=0, atol=1e-5)
    assert not pooled[1].any()  # no words
    door.save_encoder(encoder, tmp_path / "encoder")
    torch.testing.assert_close(door.load(tmp_path / "encoder").encode(batch).pooled["text"], pooled)
