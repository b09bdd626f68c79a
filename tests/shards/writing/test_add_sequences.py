"""What a frozen encoder says, written into shards and read by the encoder of stored towers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from shards import check, merge
from shards.add_features import AddFeaturesConfig, add_features, add_part, run
from shards.features.recover import features_of
from shards.reading.encoders import open_encoder
from shards.reading.index import DamagedShard, ShardSet
from shards.reading.npy import from_bytes
from shards.reading.read import EvalLoader
from shards.reading.suits import check_suits
from shards.record import ClipRecord
from shards.writing import add_sequences
from triptych.config import UserError, load
from triptych.models.encoder import Encoder
from triptych.models.steps import on_steps
from triptych.models.towers.tower import Tower, TowerOutput


class WithCls(Tower):
    """A tower whose sequence begins with a CLS: the sum over the clip."""

    has_cls = True

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower, self.width, self.sequence_width = tower, tower.sequence_width, tower.sequence_width

    def forward(self, track, layers=None):
        said = self.tower(track, layers)
        cls = (said.sequence * said.mask[..., None]).sum(dim=1, keepdim=True)
        means = cls[:, 0] / said.mask.sum(dim=1, keepdim=True).clamp(min=1)
        sequence = torch.cat([cls, said.sequence], dim=1)
        return TowerOutput(sequence=sequence, mask=torch.cat([track.present[:, None], said.mask], dim=1), pooled=means)


class Halved(Tower):
    """A tower of half as many steps as it reads."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower, self.width, self.sequence_width = tower, tower.sequence_width, tower.sequence_width

    def forward(self, track, layers=None):
        said = self.tower(track, layers)
        sequence, mask = said.sequence[:, ::2], said.mask[:, ::2]
        means = (sequence * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return TowerOutput(sequence=sequence, mask=mask, pooled=means)


def config(tones: Path, out: Path, *overrides: str) -> AddFeaturesConfig:
    given = {"shards": str(tones / "shards"), "out": str(out), "encoder": str(tones / "pairwise"), "workers": 1}
    return load(AddFeaturesConfig, given, overrides)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def stored(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set with `encoder/`, from the pairwise encoder of the tones."""
    out = tmp_path_factory.mktemp("stored") / "set"
    assert run(str(tones / "shards"), [f"encoder={tones / 'pairwise'}", f"out={out}", "workers=1"]) == 0
    return out


@torch.no_grad()
def said(encoder: Encoder, shards: Path, split: str = "test") -> tuple[dict, torch.Tensor, torch.Tensor]:
    """Key -> real steps of the audio tower; pooled vectors; and rows of a series at 7 Hz."""
    loader = EvalLoader(
        ShardSet(shards), features_of(encoder.inputs), vocabulary=None, batch_size=3, rank=0, world=1, split=split
    )
    sequences, pooled, rows = {}, [], []
    for batch in loader.batches():
        encoded = encoder.encode(batch)
        tower = encoded.towers["audio"]
        sequences |= {key: tower.sequence[row][tower.mask[row]] for row, key in enumerate(batch.keys)}
        pooled.append(encoded.pooled["audio"])
        has_cls = "audio" in encoder.modalities_with_cls
        rows.append(on_steps(tower.sequence, tower.mask, batch.tracks["audio"], 7.0, [4] * len(batch), has_cls))
    return sequences, torch.cat(pooled), torch.cat(rows)


def assert_same(first: dict, second: dict, atol: float = 1e-6) -> None:
    assert first.keys() == second.keys()
    for key, steps in first.items():
        torch.testing.assert_close(second[key], steps, rtol=0, atol=atol)


def test_the_stored_towers_say_what_the_frozen_ones_say(tones: Path, stored: Path) -> None:
    frozen, reader = open_encoder(str(tones / "pairwise"), None), open_encoder(str(stored / "encoder"), None)

    before, _, rows = said(frozen.encoder, tones / "shards")
    after, pooled, rows_after = said(reader.encoder, stored)

    assert_same(before, after)
    torch.testing.assert_close(rows_after, rows, rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled, torch.stack([steps.mean(dim=0) for steps in before.values()]))
    assert reader.sha256 == frozen.sha256
    assert reader.encoder.state_dict() == {}


def test_the_set_has_its_clips_with_their_labels_and_without_their_media(tones: Path, stored: Path) -> None:
    before, after = ShardSet(tones / "shards"), ShardSet(stored)
    assert check.inspect(stored, after.manifest, quiet=True).problems == []
    for split in ("train", "valid", "test"):
        assert after.split(split).keys == before.split(split).keys
        for sample_id in range(len(before.split(split))):
            members = after.split(split).read(sample_id)
            assert set(members) == {"json", "audio_sequence.npy", "audio_sequence.times.npy"}
            assert members["json"] == before.split(split).read(sample_id)["json"]
    assert after.manifest.labels == before.manifest.labels


@pytest.mark.parametrize("kind", [WithCls, Halved])
def test_a_cls_has_no_time_and_steps_between_those_of_the_track_have(
    kind: type, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_encoder(str(tones / "pairwise"), None)
    opened.encoder.towers["audio"] = kind(opened.encoder.towers["audio"]).eval()
    monkeypatch.setattr(add_sequences, "open_encoder", lambda *_: opened)
    add_features(config(tones, tmp_path / "out"))

    reader = open_encoder(str(tmp_path / "out" / "encoder"), None).encoder
    before, pooled, rows = said(opened.encoder, tones / "shards")
    after, pooled_after, rows_after = said(reader, tmp_path / "out")
    assert_same(before, after)
    torch.testing.assert_close(pooled_after, pooled)
    torch.testing.assert_close(rows_after, rows, rtol=0, atol=1e-6)
    assert reader.modalities_with_cls == opened.encoder.modalities_with_cls
    times = from_bytes(ShardSet(tmp_path / "out").split("test").read(0)["audio_sequence.times.npy"])
    if kind is WithCls:
        assert times[0].tolist() == [0, 0]
        assert (times[1:, 1] > times[1:, 0]).all()


def test_float16_takes_half_the_space_and_rounds_to_eleven_bits(tones: Path, stored: Path, tmp_path: Path) -> None:
    add_features(config(tones, tmp_path / "out", "dtype=float16"))
    exact, _, _ = said(open_encoder(str(stored / "encoder"), None).encoder, stored)
    rounded, _, _ = said(open_encoder(str(tmp_path / "out" / "encoder"), None).encoder, tmp_path / "out")
    for key, steps in exact.items():
        assert rounded[key].dtype == torch.float32
        torch.testing.assert_close(rounded[key], steps, rtol=2**-11, atol=2**-25)
    sizes = [len(ShardSet(one).split("test").read(0)["audio_sequence.npy"]) for one in (tmp_path / "out", stored)]
    assert sizes[0] - 128 == (sizes[1] - 128) / 2
    with pytest.raises(UserError, match="holds another, which differs in dtype"):
        check_suits(ShardSet(tmp_path / "out"), open_encoder(str(stored / "encoder"), None).encoder.inputs, (), {})


def test_numbers_beyond_float16_stop_the_writing(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_encoder(str(tones / "pairwise"), None)
    encode = opened.encoder.encode

    def louder(batch, **settings):
        towers = {
            name: TowerOutput(sequence=said.sequence * 1e6, mask=said.mask, pooled=said.pooled)
            for name, said in encode(batch, **settings).towers.items()
        }
        return SimpleNamespace(towers=towers)

    monkeypatch.setattr(opened.encoder, "encode", louder)
    monkeypatch.setattr(add_sequences, "open_encoder", lambda *_: opened)
    with pytest.raises(UserError, match=r"float16 does not hold .* take float32"):
        add_features(config(tones, tmp_path / "out", "dtype=float16"))


def test_after_an_interruption_and_in_parts_the_set_is_the_same(
    tones: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, of_batch = tmp_path / "out", add_sequences._of_batch

    def stopped(batch, plan, clips, *rest):
        if clips.split.name == "valid":
            raise KeyboardInterrupt
        return of_batch(batch, plan, clips, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(add_sequences, "_of_batch", stopped)
        with pytest.raises(KeyboardInterrupt):
            add_features(config(tones, out))
    done = {path.name: path.stat().st_mtime_ns for path in (out / "work").glob("train*.tar")}
    assert done
    assert not (out / "manifest.json").exists()
    add_part(config(tones, out, "part=2/3"))
    assert run(str(out / "work" / "config.yaml"), ["part=3/3"]) == 0
    merge.run(str(out))

    assert files(out) == files(stored)
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done


def test_another_encoder_does_not_go_on_with_it(tones: Path, tmp_path: Path) -> None:
    add_part(config(tones, tmp_path / "out", "part=1/3"))
    with pytest.raises(UserError, match="half written with encoder"):
        add_part(config(tones, tmp_path / "out", f"encoder={tones / 'encoder'}", "part=2/3"))
    with pytest.raises(UserError, match=r"half written with dtype 'float32' \(now 'float16'\)"):
        add_part(config(tones, tmp_path / "out", "dtype=float16", "part=2/3"))
    shutil.rmtree(tmp_path / "out" / "work")
    with pytest.raises(UserError, match="out/encoder: holds something else"):
        add_part(config(tones, tmp_path / "out", f"encoder={tones / 'encoder'}"))


def test_shards_of_another_encoder_are_not_read(tones: Path, stored: Path, tmp_path: Path) -> None:
    add_features(config(tones, tmp_path / "out", f"encoder={tones / 'encoder'}"))
    reader = open_encoder(str(stored / "encoder"), None).encoder
    for folder, says in ((tmp_path / "out", "holds another.*differs in encoder"), (tones / "shards", "holds none")):
        with pytest.raises(UserError, match=f"{folder}: {says}.*audio_sequence.*encoder=FOLDER/encoder"):
            said(reader, folder)


def test_a_clip_that_the_encoder_cannot_read_is_quarantined_and_a_damaged_shard_is_not(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_encoder(str(tones / "pairwise"), None)
    encode = opened.encoder.encode

    def broken(batch, **settings):
        found = encode(batch, **settings)
        if batch.keys[0] == keys[0]:
            found.towers["audio"].sequence[0] = torch.nan
        return found

    source = ShardSet(tones / "shards")
    keys = source.split("valid").keys
    monkeypatch.setattr(opened.encoder, "encode", broken)
    monkeypatch.setattr(add_sequences, "open_encoder", lambda *_: opened)
    manifest = add_features(config(tones, tmp_path / "out", "max_quarantined_share=0.1"))
    assert manifest.quarantined == {keys[0]: "the encoder says numbers of it that are not finite"}

    shutil.copytree(tones / "shards", tmp_path / "copy")
    tar = tmp_path / "copy" / "train-000000.tar"
    split = ShardSet(tmp_path / "copy").split("train")
    content = bytearray(tar.read_bytes())
    place = content.find(split.read(3)["lfbe.npy"])
    content[place + 200] ^= 1
    tar.write_bytes(content)
    damaged = config(tones, tmp_path / "out2", f"shards={tmp_path / 'copy'}", "max_quarantined_share=1")
    with pytest.raises(DamagedShard, match="CRC-32 differs"):
        add_features(damaged)


def test_media_that_cannot_be_decoded_are_quarantined(
    tones: Path, tmp_path: Path, shard_set_of: Callable[..., Path]
) -> None:
    whole = next((tones / "raw").rglob("*.wav")).read_bytes()
    contents = []
    for number in range(6):
        split = "train" if number < 4 else "valid"
        record = ClipRecord(
            key=f"{split}/clip{number}",
            speaker=f"{split}{number}",
            split=split,
            duration_s=0.5,
            has_audio=True,
            has_video=False,
            words=None,
            source={},
            labels={"emotion": "happy"},
        )
        wav = whole[: 3000 if number == 2 else None]
        contents.append((record, {"json": json.dumps(record.to_json()).encode(), "wav": wav}))
    folder = shard_set_of(contents, features=[], found=6, filtered={}, quarantined={})

    manifest = add_features(config(tones, tmp_path / "out", f"shards={folder}", "max_quarantined_share=0.5"))

    assert list(manifest.quarantined) == ["train/clip2"]
    assert "truncated" in manifest.quarantined["train/clip2"]
    assert manifest.written == 5
    assert check.inspect(tmp_path / "out", manifest, quiet=True).problems == []


def test_check_misses_times(stored: Path, tmp_path: Path) -> None:
    found = check.Found()
    (spec,) = open_encoder(str(stored / "encoder"), None).encoder.inputs.values()
    split = ShardSet(stored).split("test")
    members = split.read(0)
    short = {**members, "audio_sequence.times.npy": members["audio_sequence.times.npy"][:-8]}
    check._check_feature("a.tar", split.record(0), short, spec, found)
    check._check_feature("a.tar", split.record(0), {"audio_sequence.npy": members["audio_sequence.npy"]}, spec, found)
    assert [problem.what.split(": ")[1][:14] for problem in found.problems] == ["cannot be read"] * 2


def test_what_the_encoder_was_trained_on_goes_along(tones: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    shutil.copytree(tones / "pairwise", run_folder / "encoder")
    (run_folder / "data.json").write_text('{"corpus": "other"}')
    add_part(config(tones, tmp_path / "out", f"encoder={run_folder / 'encoder'}", "part=1/3"))
    assert (tmp_path / "out" / "encoder" / "data.json").read_text() == '{"corpus": "other"}'


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["drop=[wav]"], "leave features and drop out"),
        (["features.audio.lfbe.bands=8"], "leave features and drop out"),
        (["encoder=null", "dtype=float16"], "dtype: float16 is for the sequences of an encoder"),
        (["dtype=float8"], "dtype"),
        (["encoder=nowhere"], "nowhere: no encoder"),
        (["encoder=STORED/encoder", "shards=STORED"], "stored already"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tones: Path, stored: Path, tmp_path: Path, overrides: list[str], says: str
) -> None:
    given = [one.replace("STORED", str(stored)) for one in overrides]
    with pytest.raises(UserError, match=says):
        add_part(config(tones, tmp_path / "out", *given))
    assert not (tmp_path / "out" / "work").exists()


def test_a_row_from_scratch_has_no_weights_to_draw(stored: Path) -> None:
    with pytest.raises(UserError, match="no weights that could be fresh"):
        open_encoder(str(stored / "encoder"), None).untrained(0)
