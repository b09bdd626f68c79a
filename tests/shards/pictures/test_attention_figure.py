import numpy as np
import pytest
import torch

from shards.pictures.attention_clips import Layer, maps_of
from shards.pictures.attention_figure import Map, Side, attention_figure, heads_figure
from shards.pictures.contact_sheet import Clip
from shards.record import ClipRecord, Word
from triptych.batch import fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.attention_maps import recorded
from triptych.models.blocks import Source
from triptych.models.sse_ft import CoreModality, SseFt, SseFtConfig

INPUTS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(4,), dtype="float32"),
    "video": FeatureSpec(name="frames", modality="video", version=1, rate_hz=5.0, shape=(3,), dtype="float32"),
}


def clip_of(*words: Word) -> Clip:
    record = ClipRecord(
        key="a",
        speaker="s",
        split="test",
        duration_s=1.8,
        has_audio=False,
        has_video=False,
        words=words,
        source={},
        labels={},
    )
    return Clip(record, {})


def side(modality, starts, length):
    return Side(modality=modality, times=np.array([(start, start + length) for start in starts], dtype=float))


def test_the_share_at_the_same_time_is_counted_by_hand():
    frames = side("video", (0.0, 0.5, 1.0, 1.5), 0.5)
    weights = np.array([[[0.5, 0.4, 0.1, 0.0], [0.0, 0.0, 0.3, 0.7]], np.full((2, 4), 0.25)])
    words = Map(stack="s", layer=1, num_layers=1, queries=side("text", (0, 1), 1), keys=frames, weights=weights)
    heads, even = words.same_time
    np.testing.assert_allclose(heads, [(0.9 + 1.0) / 2, 0.5])
    assert even == 0.5
    cls = Side(modality="text", times=np.full((1, 2), np.nan))
    of_cls = Map(stack="s", layer=1, num_layers=1, queries=cls, keys=frames, weights=weights[:, :1])
    assert of_cls.same_time is None


@torch.no_grad()
def test_the_curves_of_a_cls_hold_its_whole_weight():
    """SSE-FT: each modality's CLS over the other ones' steps; their own CLS has no time, and is told in words."""
    last = Layer(index=1, number=2)
    torch.manual_seed(0)
    cores = {name: CoreModality(width=8, max_steps=40, has_cls=name == "text") for name in INPUTS}
    model = SseFt(SseFtConfig(self_attention_heads=2, inter_modal_heads=2, feedforward=8), cores, 1).eval()
    batch = fake_batch(INPUTS, num_clips=2)
    for name in ("audio", "video"):
        batch.tracks[name].times[..., 1] += 1 / INPUTS[name].rate_hz
    sources = {name: Source(torch.randn(*track.mask.shape, 8), track.mask) for name, track in batch.tracks.items()}
    with recorded(model) as seen:
        model(sources)
    maps = maps_of(seen, batch, 1, {name: last for name in seen if name.startswith("inter_modal")})
    assert [one.stack for one in maps if one.queries.is_cls] == [one.stack for one in maps]
    text = batch.tracks["text"]
    words = tuple(Word("word", *times) for times in text.times[1][text.mask[1]].tolist())
    figure = attention_figure(clip_of(*words), maps)
    drawn = [patch for axis in figure.axes[1:] for patch in axis.patches]
    for one, patch in zip(maps, drawn, strict=True):
        values, edges, _ = patch.get_data()
        rest = one.weights.mean(axis=0)[0, np.isnan(one.keys.times[:, 0])].sum()
        assert (values * np.diff(edges)).sum() + rest == pytest.approx(1, abs=1e-5)
    assert len(heads_figure(clip_of(*words), maps).axes) == 3 * 2


def test_even_attention_is_pale_and_a_cls_among_the_keys_is_told_in_words():
    """Sound to sound: three steps of which the first is a CLS, all alike."""
    times = np.array([[np.nan, np.nan], [0.0, 0.9], [0.9, 1.8]])
    sound = Side(modality="audio", times=times)
    even = Map(stack="s", layer=1, num_layers=1, queries=sound, keys=sound, weights=np.full((2, 3, 3), 1 / 3))
    of_cls, of_steps = attention_figure(clip_of(), [even]).axes
    assert "CLS of the sound" in of_cls.get_title(loc="left")
    assert "even 0.33, to its CLS 0.33" in of_steps.get_title(loc="left")
    (mesh,) = of_steps.collections
    assert mesh.get_array().shape == (2, 2)
    assert mesh.norm(1 / 3) <= 0.34


def test_bars_of_whole_modalities_are_as_long_as_the_weights():
    whole = Side(modality="modalities", times=np.full((2, 2), np.nan), names=("text", "video"))
    weights = np.array([[[0.75, 0.25], [0.0, 1.0]], [[0.25, 0.75], [0.0, 1.0]]])
    one = Map(stack="attention", layer=1, num_layers=1, queries=whole, keys=whole, weights=weights)
    words, bars = attention_figure(clip_of(Word("hi", 0.1, 0.4)), [one]).axes
    assert words.get_xlabel() == "seconds"  # the bars have no time
    assert bars.get_xlabel() == ""
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0.5, 0.0, 1.0]
    assert [text.get_text() for text in bars.texts] == ["words 0.50", "picture 0.50", "picture 1.00"]
    assert [bar.get_width() for bar in heads_figure(clip_of(), [one]).axes[0].patches] == [0.75, 0.25, 0.0, 1.0]


def test_a_word_without_length_hides_no_other():
    cls = Side(modality="audio", times=np.full((1, 2), np.nan))
    one = Map(
        stack="s",
        layer=1,
        num_layers=1,
        queries=cls,
        keys=side("text", (0.0, 1.0), 0.0),
        weights=np.full((1, 1, 2), 0.5),
    )
    (curves,) = attention_figure(clip_of(), [one]).axes
    assert curves.get_ylim()[1] < 100


def test_of_the_pieces_of_a_word_the_first_one_names_it():
    """Also where words, which may overlap, begin and end together."""
    clip = clip_of(Word("unhappy!", 0.0, 0.6), Word("so", 0.5, 0.9), Word("zoo", 1.2, 1.5))
    starts, ends = (0, 0.2, 0.6, 1.2, 1.3, 1.4), (0.2, 0.6, 0.9, 1.3, 1.4, 1.5)
    pieces = Side(modality="text", times=np.array([starts, ends]).T)
    frames = side("video", (0.0, 0.9), 0.9)
    one = Map(stack="s", layer=1, num_layers=1, queries=pieces, keys=frames, weights=np.full((1, 6, 2), 0.5))
    axis = attention_figure(clip, [one]).axes[-1]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["unhappy!", "", "so", "zoo", "", ""]
