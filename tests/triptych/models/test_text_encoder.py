import json
import shutil
from dataclasses import replace

import pytest
import torch

from pretrain.masking import MaskConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import PretrainTask
from triptych import config, optim
from triptych.batch import Batch, Track, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models import load as door
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.text_encoder import TextEncoder, TextEncoderConfig
from triptych.models.towers import InputConfig

WORDS = ("happy", "sad", "unhappy", "zoo", "a")
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(
        name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16", support_s=(0.0, 0.065)
    ),
}


def make(folder, **settings):
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


def encoder_of(folder, **settings):
    torch.manual_seed(2)
    config = CrossModalConfig(
        modalities=("text", "audio"),
        transformer=TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0),
        input=InputConfig(text_encoder=TextEncoderConfig(model=str(folder), **settings)),
    )
    encoder = door.build(door.SystemConfig(cross_modal=config), SPECS, WORDS)
    encoder.start()
    return encoder


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
