import pytest
import torch

from triptych.models.blocks import Source
from triptych.models.mult import Mult, MultConfig

WIDTHS = {"text": 6, "audio": 5, "video": 3}
SMALL = MultConfig(width=4, layers=2, heads=2, dropout=0.0, embedding_dropout=0.0)


def count(config, widths, num_outputs):
    return sum(weight.numel() for weight in Mult(config, widths, num_outputs).parameters())


def transformer(width, layers):
    """Layers of four projections, feed-forward of four times the width and two norms; a last norm."""
    square = width * width + width
    feedforward = width * 4 * width + 4 * width + 4 * width * width + width
    return layers * (4 * square + feedforward + 4 * width) + 2 * width


def test_it_has_as_many_weights_as_the_published_code():
    """Measured on that code, with features of 300, 74 and 35 numbers and one output."""
    assert count(MultConfig(), {"text": 300, "audio": 74, "video": 35}, 1) == 1_073_731


@pytest.mark.parametrize("names", [("text",), ("text", "audio"), ("text", "audio", "video")])
def test_its_weights_can_be_counted_by_hand(names):
    number, inputs = len(names), sum(WIDTHS[name] for name in names)
    wide = 4 * max(1, number - 1)
    together = number * wide
    assert count(SMALL, {name: WIDTHS[name] for name in names}, 7) == (
        inputs * 4
        + number * (number - 1) * transformer(4, 2)
        + number * transformer(wide, 2)
        + 2 * (together * together + together)
        + together * 7
        + 7
    )


def model_of(names=tuple(WIDTHS), config=SMALL):
    torch.manual_seed(0)
    model = Mult(config, {name: WIDTHS[name] for name in names}, 2).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def sources(lengths, fill=0.0):
    torch.manual_seed(1)
    found = {}
    for name, width in WIDTHS.items():
        mask = torch.arange(max(lengths[name]) + 1) < torch.tensor(lengths[name])[:, None]
        values = torch.randn(*mask.shape, width).double().masked_fill(~mask[..., None], fill)
        found[name] = Source(values, mask)
    return found


def test_what_lies_at_padding_need_not_even_be_a_number():
    lengths = {"text": [3, 5, 2], "audio": [6, 2, 0], "video": [1, 4, 0]}
    model = model_of()
    torch.testing.assert_close(model(sources(lengths, torch.nan)), model(sources(lengths)), rtol=0, atol=0)


def test_without_attention_only_the_last_step_counts():
    model, lengths = model_of(), {"text": [3, 5], "audio": [6, 2], "video": [1, 4]}
    for name, weight in model.named_parameters():
        if "attention.output" in name:
            torch.nn.init.zeros_(weight)
    given = sources(lengths)
    for source in given.values():
        source.sequence.requires_grad_()
    model(given).square().sum().backward()
    for name, source in given.items():
        counts = source.sequence.grad.abs().sum(dim=2) > 0
        steps = torch.arange(counts.shape[1])
        assert torch.equal(counts, steps == torch.tensor(lengths[name])[:, None] - 1)


def test_without_a_source_a_crossmodal_transformer_is_its_own_layers_without_attention():
    model = model_of(("text", "audio"))
    given = sources({"text": [3, 5], "audio": [0, 2], "video": [0, 0]})
    stream = Source(model.inputs["text"](given["text"].sequence), given["text"].mask)
    sound = Source(model.inputs["audio"](given["audio"].sequence), given["audio"].mask)
    stack = model.crossmodal["text_from_audio"]
    alone = stack(stream, sound)[0, :3]
    for layer in stack.layers:
        torch.nn.init.zeros_(layer.attention.output.weight)
        torch.nn.init.zeros_(layer.attention.output.bias)
    mute = stack(stream, sound)
    torch.testing.assert_close(alone, mute[0, :3])
    assert alone.abs().sum() > 0


def test_sizes_that_do_not_fit_are_refused():
    for settings, message in (({"width": 15}, "must be even"), ({"heads": 4}, "multiple of the heads"),
                              ({"layers": 0}, "at least 1"), ({"dropout": 1.0}, "in \\[0, 1\\)")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            MultConfig(**settings)
