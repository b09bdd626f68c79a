import dataclasses
from unittest.mock import patch

import pytest
import torch
from torch import nn

from triptych.models.attention import SingleQueries
from triptych.models.blocks import Source, TransformerConfig, TransformerLayer, TransformerStack
from triptych.models.sse_ft import CoreModality, SseFt, SseFtConfig, attend_with_cls

PAPER_CORES = {
    "text": CoreModality(width=1024, max_steps=512, has_cls=True),
    "audio": CoreModality(width=512, max_steps=935),
    "video": CoreModality(width=256, max_steps=300),
}
TABLE_2 = {
    "mosei": (SseFtConfig(), 1),
    "mosi": (
        SseFtConfig(
            self_attention_blocks=1,
            inter_modal_blocks=1,
            self_attention_heads=1,
            inter_modal_heads=1,
            dropout=0.5,
        ),
        1,
    ),
    "iemocap": (SseFtConfig(inter_modal_blocks=1), 8),
    "meld": (
        SseFtConfig(self_attention_blocks=1, inter_modal_blocks=1, self_attention_heads=2, inter_modal_heads=2),
        7,
    ),
}
SMALL = {
    "words": CoreModality(width=16, max_steps=9, has_cls=True),
    "sound": CoreModality(width=12, max_steps=9),
    "face": CoreModality(width=8, max_steps=9),
}
SMALL_CONFIG = SseFtConfig(
    self_attention_heads=2, inter_modal_heads=2, self_attention_blocks=1, feedforward=10, dropout=0.0
)


def unfilled(cores, config, num_outputs):
    """A model without any memory; drawing numbers for it would load torch's decompositions, which takes seconds."""
    draws = dict.fromkeys(
        ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_"), lambda weight, *_, **__: weight
    )
    with torch.device("meta"), patch.multiple("torch.nn.init", **draws):
        return SseFt(config, cores, num_outputs)


def parameters(cores, config, num_outputs):
    return sum(weight.numel() for weight in unfilled(cores, config, num_outputs).parameters())


def linear(inputs, outputs):
    return inputs * outputs + outputs


def layer(width, source):
    """Query and output, key and value, two norms of two vectors, and the feed-forward of 1024."""
    return (
        2 * linear(width, width) + 2 * linear(source, width) + 2 * 2 * width + linear(width, 1024) + linear(1024, width)
    )


def in_front(width, steps):
    """CLS, positions of it and of all steps, a norm."""
    return width + (steps + 1) * width + 2 * width


def head(width, outputs):
    return linear(width, width) + linear(width, outputs)


T, A, V = 1024, 512, 256
IN_FRONT = {"audio": in_front(A, 935), "video": in_front(V, 300)}
SIX = sum(layer(query, keys) for query in (T, A, V) for keys in (T, A, V) if query != keys)


@pytest.mark.parametrize("name", TABLE_2)
def test_the_paper_s_models_have_the_parameters_counted_by_hand(name):
    config, outputs = TABLE_2[name]
    own = config.self_attention_blocks * (layer(A, A) + layer(V, V)) + sum(IN_FRONT.values())
    assert parameters(PAPER_CORES, config, outputs) == own + config.inter_modal_blocks * SIX + head(1792, outputs)


def test_so_have_the_ablations():
    def of(fusion="hadamard", cores=tuple(PAPER_CORES)):
        return parameters({core: PAPER_CORES[core] for core in cores}, SseFtConfig(fusion=fusion), 1)

    audio, video = 2 * layer(A, A) + IN_FRONT["audio"], 2 * layer(V, V) + IN_FRONT["video"]
    assert of(cores=["text"]) == head(1024, 1)
    assert of(cores=["audio"]) == audio + head(512, 1)
    assert of(cores=["video"]) == video + head(256, 1)
    assert of(cores=["text", "audio"]) == audio + 2 * (layer(T, A) + layer(A, T)) + head(1024 + 512, 1)
    assert of(cores=["audio", "video"]) == audio + video + 2 * (layer(A, V) + layer(V, A)) + head(512 + 256, 1)
    assert of("cls") == audio + video + head(1792, 1)
    assert of("concatenation") == audio + video + 2 * SIX + head(2 * 1792, 1)


def batch_of(cores, lengths, dtype=torch.float64, seed=0):
    """Clips of these lengths, padded by one more step than needed, with numbers in the padding too."""
    generator = torch.Generator().manual_seed(seed)
    sources = {}
    for name, core in cores.items():
        longest = max(lengths[name]) + 1
        mask = torch.arange(longest) < torch.tensor(lengths[name])[:, None]
        values = torch.randn(*mask.shape, core.width, generator=generator, dtype=dtype)
        sources[name] = Source(values.requires_grad_(), mask)
    return sources


def model_of(cores=SMALL, num_outputs=2, **settings):
    """With weights far from the start, so that everything counts."""
    torch.manual_seed(0)
    model = SseFt(dataclasses.replace(SMALL_CONFIG, **settings), cores, num_outputs).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return model


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("lengths", [[6, 6], [2, 5]])
def test_the_cls_alone_is_row_0_of_all_queries(heads, lengths):
    torch.manual_seed(0)
    size = TransformerConfig(width=16, layers=3, heads=heads, feedforward=10, dropout=0.0)
    stack = TransformerStack(size, "queries", 24, nn.GELU).double()
    full = TransformerStack(size, None, 24, nn.GELU).double()
    with torch.no_grad():
        for weight in stack.parameters():
            weight.copy_(torch.randn_like(weight) * 0.4)
    full.load_state_dict(stack.state_dict())
    x, keys = torch.randn(2, 4, 16).double(), torch.randn(2, 6, 24).double().requires_grad_()
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    one = attend_with_cls(stack, x[:, 0], keys, SingleQueries(mask))
    row = full(x, torch.ones(2, 4, dtype=torch.bool), Source(keys, mask))[:, 0]
    torch.testing.assert_close(one, row, rtol=0, atol=1e-10)
    found, expected = (
        torch.autograd.grad(out.square().sum(), [keys, *part.parameters()]) for out, part in ((one, stack), (row, full))
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    assert torch.all(found[0][~mask] == 0)


def test_an_inter_modal_layer_is_torchs_attention_from_one_width_to_another():
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(16, 4, kdim=24, vdim=24, batch_first=True).double()
    nn.init.normal_(reference.in_proj_bias)
    size = TransformerConfig(width=16, layers=1, heads=4, feedforward=10, dropout=0.0)
    ours = TransformerLayer(size, "queries", 24, nn.GELU).double()
    projections = (reference.q_proj_weight, reference.k_proj_weight, reference.v_proj_weight)
    parts = (ours.attention.query, ours.attention.key, ours.attention.value)
    for part, weight, bias in zip(parts, projections, reference.in_proj_bias.chunk(3), strict=True):
        part.load_state_dict({"weight": weight, "bias": bias})
    ours.attention.output.load_state_dict(reference.out_proj.state_dict())
    cls, keys = torch.randn(3, 16).double(), torch.randn(3, 7, 24).double()
    mask = torch.arange(7) < torch.tensor([7, 1, 4])[:, None]
    attended = reference(cls[:, None], keys, keys, key_padding_mask=~mask, need_weights=False)[0][:, 0]
    torch.testing.assert_close(ours.attention(cls, keys, keys, SingleQueries(mask)), attended)
    x = ours.attention_norm(cls + attended)
    expected = ours.feedforward_norm(x + ours.feedforward[2](nn.functional.gelu(ours.feedforward[0](x))))
    torch.testing.assert_close(ours(cls, cls, keys, keys, SingleQueries(mask)), expected)


@pytest.mark.parametrize("fusion", ["hadamard", "concatenation", "cls"])
def test_padding_has_no_influence_at_all(fusion):
    model = model_of(fusion=fusion)
    lengths = {"words": [3, 5], "sound": [6, 2], "face": [1, 4]}
    sources = batch_of(SMALL, lengths)
    outputs = model(sources).outputs
    outputs.square().sum().backward()
    for name, source in sources.items():
        gradient = source.sequence.grad
        assert torch.all(gradient[~source.mask] == 0)
        if name != "words" or fusion != "cls":  # whose first step alone counts there
            assert torch.all(gradient[source.mask].abs().sum(dim=1) > 0)
    for clip in range(2):  # alone, without any padding
        alone = {
            name: Source(
                source.sequence[clip : clip + 1, : lengths[name][clip]], torch.ones(1, lengths[name][clip]) > 0
            )
            for name, source in sources.items()
        }
        torch.testing.assert_close(model(alone).outputs[0], outputs[clip], rtol=0, atol=1e-12)


def test_what_lies_at_padding_need_not_even_be_a_number():
    model, sources = model_of(), batch_of(SMALL, {"words": [3, 5], "sound": [6, 2], "face": [1, 4]})
    broken = {
        name: Source(source.sequence.detach().masked_fill(~source.mask[..., None], torch.nan), source.mask)
        for name, source in sources.items()
    }
    torch.testing.assert_close(model(broken).outputs, model(sources).outputs, rtol=0, atol=0)


def test_a_clip_without_a_modality_is_what_the_others_make_of_it():
    model = model_of()
    pair = SseFt(model.config, {name: SMALL[name] for name in ("words", "sound")}, 2).double()
    shared = {name: weight for name, weight in model.state_dict().items() if name in pair.state_dict()}
    pair.load_state_dict({**shared, **pair.head.state_dict(prefix="head.")})
    sources = batch_of(SMALL, {"words": [3, 5, 4], "sound": [6, 2, 0], "face": [0, 4, 0]})
    said = model(sources)
    assert {name: has.tolist() for name, has in said.present.items()} == {
        "words": [True] * 3,
        "sound": [True, True, False],
        "face": [False, True, False],
    }
    words, sound, face = said.fused.split([16, 12, 8], dim=1)
    assert torch.all(face[0] == 0)
    assert torch.all(sound[2] == 0)
    without = pair({name: sources[name] for name in ("words", "sound")}).fused
    torch.testing.assert_close(torch.cat([words, sound], dim=1)[0], without[0])
    torch.testing.assert_close(words[2], sources["words"].sequence[2, 0])  # alone: its own CLS
    said.outputs.square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    for name, source in sources.items():
        assert torch.all(source.sequence.grad[~source.mask] == 0), name


@pytest.mark.parametrize(("fusion", "width"), [("hadamard", 40), ("concatenation", 3 * 40), ("cls", 40)])
def test_a_fourth_modality_needs_no_code(fusion, width):
    cores = {**SMALL, "pulse": CoreModality(width=4, max_steps=9)}
    sources = batch_of(cores, {"words": [3], "sound": [6], "face": [4], "pulse": [2]})
    said = model_of(cores, 5, fusion=fusion)(sources)
    assert said.fused.shape == (1, width)
    said.outputs.sum().backward()
    assert all(source.sequence.grad.abs().sum() > 0 for source in sources.values())


@pytest.mark.parametrize(("name", "fusion"), [("words", "hadamard"), ("sound", "concatenation"), ("face", "cls")])
def test_one_modality_is_its_cls_and_the_head(name, fusion):
    model = model_of({name: SMALL[name]}, fusion=fusion)
    source = batch_of(SMALL, {name: [4, 2] for name in SMALL})[name]
    said = model({name: source})
    expected = source.sequence if name == "words" else model.self_attention[name](source).sequence
    torch.testing.assert_close(said.fused, expected[:, 0])


def test_the_fused_vector_of_the_paper_is_1792_wide():
    assert unfilled(PAPER_CORES, SseFtConfig(), 1).fused_width == 1024 + 512 + 256
    assert unfilled(PAPER_CORES, SseFtConfig(fusion="concatenation"), 1).fused_width == 2 * 1792


def test_mistakes_are_named():
    sources = batch_of(SMALL, {"words": [3], "sound": [9], "face": [4]})
    with pytest.raises(ValueError, match="sound: 10 steps, and max_steps is 9"):
        model_of()(sources)
    with pytest.raises(ValueError, match="built for words, sound, face, and got words"):
        model_of()({"words": sources["words"]})
    with pytest.raises(ValueError, match="at least one modality"):
        SseFt(SseFtConfig(), {}, 1)
    with pytest.raises(ValueError, match="must be a multiple"):
        SseFt(SseFtConfig(), {"face": CoreModality(width=6, max_steps=4)}, 1)
    with pytest.raises(ValueError, match="inter_modal_blocks: 0"):
        SseFtConfig(inter_modal_blocks=0)
