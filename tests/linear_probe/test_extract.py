import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from linear_probe.blocks import Block
from linear_probe.extract import extract
from linear_probe.sources import EncoderSource, InputMeans
from shards.features.config import AudioFeature, FeaturesConfig, build
from shards.features.lfbe import LfbeConfig
from shards.features.words import WORDS as TEXT
from shards.reading.clips import Clips
from shards.reading.index import ShardSet, Split
from shards.words.words import Vocabulary
from triptych.config import UserError
from triptych.models import load
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.pairwise import AudioTowerConfig, PairwiseConfig
from triptych.models.towers.tcn import TcnConfig

VOCABULARY = ("set", "red", "at", "bin")
ALL = ("text", "audio", "video")


@pytest.fixture(scope="module")
def given() -> ModuleType:
    """What the tests of `shards` make tiny shard sets with."""
    spec = importlib.util.spec_from_file_location("given", Path(__file__).parents[1] / "shards" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(given: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 23 clips to train on and 7 of valid; of each split clip 1 has no words, 2 no sound, 3 no picture."""
    features = build(given.TINY_FEATURES)
    records = [given.clip(split, number) for split, many in given.NUM_CLIPS.items() for number in range(many)]
    contents = [(record, given.members(record, features)) for record in records]
    return given.write_set(tmp_path_factory.mktemp("probed") / "tiny", contents)


@pytest.fixture(scope="module")
def inputs(given):
    return {"text": TEXT, **{name: feature.spec for name, feature in build(given.TINY_FEATURES).items()}}


@pytest.fixture(scope="module")
def source(inputs):
    tiny = TransformerConfig(width=8, layers=1, heads=2)
    torch.manual_seed(0)
    system = load.SystemConfig(cross_modal=CrossModalConfig(modalities=ALL, anchor="each", transformer=tiny))
    return EncoderSource(load.build(system, inputs, VOCABULARY).eval(), {"weights": "a"})


@pytest.fixture
def reads(monkeypatch):
    """The samples that are opened, by split and id."""
    opened = []
    read = Split.read

    def counted(self, sample_id, extensions=None):
        opened.append((self.name, sample_id))
        return read(self, sample_id, extensions)

    monkeypatch.setattr(Split, "read", counted)
    return opened


def tables(folder, sources, wanted, cache=None, batch_size=7, workers=0):
    return extract(
        ShardSet(folder),
        sources,
        wanted,
        cache=cache,
        batch_size=batch_size,
        workers=workers,
        device=torch.device("cpu"),
    )


BLOCKS = [
    Block("fused", ALL),
    Block("fused", ("audio",)),
    Block("audio", ("audio",), layer="stack"),
    Block("text", ("text",), layer=1),
]


def test_every_clip_of_every_split_has_a_row_in_the_order_of_the_shards(tiny, source):
    table = tables(tiny, {"a": source}, {"a": BLOCKS})["a"]
    shard_set = ShardSet(tiny)
    assert list(table.keys) == shard_set.split("train").keys + shard_set.split("valid").keys
    assert table.offsets.tolist() == list(range(31))
    assert table.blocks[BLOCKS[0]].shape == (30, 8)
    assert table.blocks[BLOCKS[2]].shape == (30, 2, 8)
    assert all(rows.dtype == np.float32 for rows in table.blocks.values())
    lacks = {"text": [1, 24], "audio": [2, 25], "video": [3, 26]}  # clips 1, 2 and 3 of train, and of valid
    assert {name: np.nonzero(~there)[0].tolist() for name, there in table.present.items()} == lacks
    for block in BLOCKS[2:]:
        rows = table.blocks[block].reshape(30, -1)
        assert np.nonzero(~rows.any(axis=1))[0].tolist() == lacks[block.output]


def test_the_rows_are_those_of_the_clips_alone(tiny, source):
    found = tables(tiny, {"a": source}, {"a": BLOCKS}, batch_size=4)["a"]
    other = tables(tiny, {"a": source}, {"a": BLOCKS}, batch_size=30, workers=1)["a"]
    assert found.keys == other.keys
    for block in BLOCKS:
        np.testing.assert_allclose(found.blocks[block], other.blocks[block], atol=1e-5)


def test_rows_of_a_series_lie_between_the_offsets_of_their_clip(tiny, given, source):
    block = Block("audio", ("audio",), rate_hz=10)
    table = tables(tiny, {"a": source}, {"a": [block]})["a"]
    seconds = [given.clip(split, number).duration_s for split in ("train", "valid") for number in range(23)]
    steps = np.diff(table.offsets).tolist()
    assert steps == [int(np.ceil(round(10 * duration, 6))) for duration in (seconds[:23] + seconds[23:30])]
    rows = table.blocks[block]
    assert len(rows) == table.offsets[-1]
    silent = [not rows[start:stop].any() for start, stop in zip(table.offsets, table.offsets[1:], strict=False)]
    assert np.nonzero(silent)[0].tolist() == [2, 25]
    with pytest.raises(UserError, match="one rate"):
        tables(tiny, {"a": source}, {"a": [block, BLOCKS[0]]})


def test_sources_that_read_the_same_share_a_pass(tiny, source, inputs, reads):
    means = InputMeans(inputs, Vocabulary(VOCABULARY))
    wanted = {"a": BLOCKS, "means": [Block("video", ALL), Block("audio", ALL, layer="moments")]}
    tables(tiny, {"a": source, "means": means}, wanted)
    assert len(reads) == len(set(reads)) == 30


def test_a_source_with_other_features_or_words_has_its_own_pass(
    tiny, source, inputs, reads, caplog: pytest.LogCaptureFixture
):
    others = build(FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=5))))
    sources = {
        "a": source,
        "bands": InputMeans({"audio": others["audio"].spec}, None),
        "words": InputMeans(inputs, Vocabulary(("blue",))),
    }
    wanted = {"a": BLOCKS, "bands": [Block("audio", ("audio",))], "words": [Block("text", ("text",))]}
    found = tables(tiny, sources, wanted)
    assert "differs in shape" in caplog.text
    assert len(reads) == 90 - 30  # the bands and the other words do not disagree with each other
    assert found["bands"].blocks[wanted["bands"][0]].shape == (30, *others["audio"].spec.shape)
    counts = found["words"].blocks[wanted["words"][0]]
    assert counts[:, 2:].sum() == 0  # of its one word
    assert counts[:, 1].sum() > 0


def test_nothing_shown_is_zeros_and_nothing_is_read(tiny, source, reads):
    block = Block("audio", ("video",))
    table = tables(tiny, {"a": source}, {"a": [block]})["a"]
    assert table.blocks[block].shape == (30, 8)
    assert not table.blocks[block].any()
    assert reads == []


def test_what_is_cached_opens_no_shard_and_is_the_same(tiny, source, tmp_path, reads, monkeypatch):
    first = tables(tiny, {"a": source}, {"a": BLOCKS}, tmp_path)["a"]
    assert len(reads) == 30

    def fail(*_):
        raise AssertionError("a shard is opened")

    monkeypatch.setattr(Clips, "load", fail)
    monkeypatch.setattr(Split, "read", fail)
    monkeypatch.setattr(ShardSet, "split", fail)
    second = tables(tiny, {"renamed": source}, {"renamed": BLOCKS}, tmp_path)["renamed"]
    assert second.keys == first.keys
    assert all(np.array_equal(second.blocks[block], first.blocks[block]) for block in BLOCKS)
    assert all(np.array_equal(second.present[name], first.present[name]) for name in ALL)


def test_only_what_is_missing_is_computed(tiny, source, tmp_path, monkeypatch):
    tables(tiny, {"a": source}, {"a": BLOCKS[:2]}, tmp_path)
    asked = []
    compute = EncoderSource.compute

    def noted(self, batch, blocks, num_rows):
        asked.append((set(batch.tracks), blocks))
        return compute(self, batch, blocks, num_rows)

    monkeypatch.setattr(EncoderSource, "compute", noted)
    again = [Block("audio", ("audio",), layer=1), BLOCKS[0]]
    tables(tiny, {"a": source}, {"a": again}, tmp_path)
    assert all(seen == ({"audio"}, again[:1]) for seen in asked)
    assert asked


@pytest.mark.parametrize("changed", ["encoder", "shards", "block"])
def test_another_encoder_shard_or_setting_is_not_taken_for_the_cached_one(
    changed, tiny, given, source, inputs, tmp_path, shard_set_without, reads
):
    tables(tiny, {"a": source}, {"a": BLOCKS[1:2]}, tmp_path)
    reads.clear()
    other = EncoderSource(source.encoder, {"weights": "b"}) if changed == "encoder" else source
    folder = shard_set_without if changed == "shards" else tiny
    block = replace(BLOCKS[1], shown=("audio", "text")) if changed == "block" else BLOCKS[1]
    found = tables(folder, {"a": other}, {"a": [block]}, tmp_path)["a"]
    assert len(reads) == len(found.keys)


@pytest.fixture
def shard_set_without(given, tmp_path):
    """A set of the first four clips alone."""
    features = build(given.TINY_FEATURES)
    records = [given.clip("train", number) for number in range(4)]
    return given.write_set(tmp_path / "few", [(record, given.members(record, features)) for record in records])


def test_a_damaged_cache_stops_before_anything_is_read(tiny, source, tmp_path, reads):
    tables(tiny, {"a": source}, {"a": BLOCKS[:1]}, tmp_path)
    reads.clear()
    for description in tmp_path.glob("*.json"):
        if json.loads(description.read_text())["identity"]["what"] == "block":
            path = description.with_suffix(".npy")
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name}.*remove it"):
        tables(tiny, {"a": source}, {"a": [BLOCKS[1], BLOCKS[0]]}, tmp_path)
    assert reads == []


def test_mistakes_are_told_before_anything_is_read(tiny, source, tmp_path, reads):
    for wanted, message in (
        ({"a": [Block("audi", ALL)]}, "Did you mean audio"),
        ({"a": [BLOCKS[0], Block("audio", ("audio",), layer=9)]}, "it has 0 to 1"),
        ({"b": BLOCKS}, r"no source.* There are a"),
    ):
        with pytest.raises(UserError, match=message):
            tables(tiny, {"a": source}, wanted, tmp_path)
    unknown = replace(source.inputs["audio"], version=99)
    with pytest.raises(UserError, match="differs in version"):
        tables(
            tiny,
            {"a": source, "old": InputMeans({"audio": unknown}, None)},
            {"a": BLOCKS, "old": [Block("audio", ("audio",))]},
        )
    assert reads == []


def test_a_damaged_clip_ends_the_pass_and_nothing_is_kept(given, source, tmp_path):
    features = build(given.TINY_FEATURES)
    records = [given.clip("train", number) for number in range(4)]
    folder = given.write_set(tmp_path / "few", [(record, given.members(record, features)) for record in records])
    tar = folder / "train-000000.tar"
    content = tar.read_bytes()
    at = content.index(b"\x93NUMPY") + 150
    tar.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(UserError, match="CRC-32 differs"):
        tables(folder, {"a": source}, {"a": BLOCKS}, tmp_path / "cache", workers=1)
    told = [json.loads(path.read_text())["identity"]["what"] for path in (tmp_path / "cache").glob("*.json")]
    assert sorted(told) == ["durations", "keys"]


def test_numbers_that_are_not_finite_are_refused_and_the_clip_named(tiny, inputs):
    class Broken(InputMeans):
        def compute(self, batch, blocks, num_rows):
            rows = super().compute(batch, blocks, num_rows)
            return {
                block: torch.where(torch.tensor(["clip04" in key for key in batch.keys])[:, None], torch.nan, found)
                for block, found in rows.items()
            }

    with pytest.raises(UserError, match=r"means: audio, layer pooled: .*not finite.*train-speaker0/clip04"):
        tables(tiny, {"means": Broken(inputs, Vocabulary(VOCABULARY))}, {"means": [Block("audio", ALL)]})


def test_an_encoder_without_fusion_is_run_once_a_batch(tiny, inputs, monkeypatch):
    towers = PairwiseConfig(audio=AudioTowerConfig(tcn=TcnConfig(bottleneck=8, hidden=16, blocks=2)), width=16)
    audio = {"audio": inputs["audio"]}
    encoder = load.build(load.SystemConfig(pairwise=towers), audio, ()).eval()
    encode, passes = encoder.encode, []
    monkeypatch.setattr(encoder, "encode", lambda batch, **asked: passes.append(len(batch)) or encode(batch, **asked))
    wanted = [Block("audio", ("audio",)), Block("audio", ("audio",), layer=-1)]
    tables(tiny, {"a": EncoderSource(encoder, {})}, {"a": wanted}, batch_size=30)
    assert passes == [1, 23, 7]  # the first is of no clip: it tells which layers there are
