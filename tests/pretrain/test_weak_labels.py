"""Labels that come for free, beside the words: from the clips themselves or from a file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pretrain.config import ObjectivesConfig
from pretrain.masking import MaskConfig
from pretrain.objectives.masked_lm import MaskedLMConfig
from pretrain.objectives.objective import PretrainTask
from pretrain.objectives.weak_labels import WeakLabels, WeakLabelsConfig
from shards.reading.collate import Sample, collate
from shards.record import ClipRecord
from triptych import config
from triptych.batch import IGNORE, Batch, fake_batch
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.blocks import TransformerConfig
from triptych.models.cross_modal import CrossModalConfig
from triptych.models.load import SystemConfig, build

WORDS = tuple(f"w{i}" for i in range(20))
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16"),
}
LABELS = {"gender": ["f", "m"], "emotion": ["angry", "happy", "sad"]}
WriteFile = Callable[..., Path]


def make_encoder() -> Any:
    torch.manual_seed(0)
    transformer = TransformerConfig(width=16, layers=1, heads=2, feedforward=32, dropout=0.0)
    return build(
        SystemConfig(cross_modal=CrossModalConfig(modalities=tuple(SPECS), transformer=transformer)), SPECS, WORDS
    )


def make(**settings: Any) -> PretrainTask:
    encoder = make_encoder()
    given = WeakLabelsConfig(**{"labels": LABELS, **settings})
    return PretrainTask(encoder, {"weak_labels": given.build(encoder, seed=0)})


def batch_of(num_clips: int = 4, **fields: Any) -> Batch:
    """Clips with both labels, but clip 1 lacks the gender and clip 2 the emotion."""
    gender, emotion = torch.arange(num_clips) % 2, torch.arange(num_clips) % 3
    gender[1] = emotion[2] = -1
    batch = fake_batch(SPECS, num_clips=num_clips, num_words=num_clips + 1, **fields)
    return replace(batch, labels={"gender": gender, "emotion": emotion})


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    def write(*lines: str, header: str = "key,emotion") -> Path:
        (tmp_path / "opinions.csv").write_text("\n".join((header, *lines)) + "\n")
        return tmp_path / "opinions.csv"

    return write


def test_only_clips_with_a_label_are_asked_and_counted() -> None:
    task = make()
    batch = task.prepare(batch_of())
    assert task.labels == {"gender": ("f", "m"), "emotion": ("angry", "happy", "sad")}
    assert batch.targets["weak_labels"].tolist() == [[0, 0], [IGNORE, 1], [0, IGNORE], [1, 0]]
    output = task(batch)
    assert task.counts(batch)["weak_labels"] == output.losses["weak_labels"].count == 6
    assert {name: total.count for name, total in output.report.items()} == {
        "accuracy_gender/weak_labels": 3,
        "accuracy_emotion/weak_labels": 3,
    }


def test_an_unlabelled_clip_leaves_no_trace_in_loss_and_gradient() -> None:
    task = make(labels={"gender": LABELS["gender"]})
    batch = task.prepare(batch_of())
    with_three = task(batch).losses["weak_labels"].sum
    batch.tracks["audio"].values[1] += 5  # clip 1 has no gender
    assert torch.equal(task(batch).losses["weak_labels"].sum, with_three)


def test_a_clip_of_which_the_vector_sees_nothing_is_not_asked() -> None:
    clips = batch_of(absent={"text": (0,), "audio": (3,)})
    asked = {}
    for pooled in ("fused", "text", "audio"):
        task = make(pooled=pooled)
        asked[pooled] = (task.prepare(clips).targets["weak_labels"] != IGNORE).any(dim=1).tolist()
    assert asked["fused"] == asked["text"] == [False, True, True, True]  # the text is the anchor
    assert asked["audio"] == [True, True, True, False]


def test_without_a_fused_vector_all_towers_are_asked_side_by_side() -> None:
    encoder = make_encoder()
    encoder.widths = {name: width for name, width in encoder.widths.items() if name != "fused"}
    task = PretrainTask(encoder, {"weak_labels": WeakLabelsConfig(labels=LABELS).build(encoder, seed=0)})
    batch = task.prepare(batch_of(absent={"text": (0,), "audio": (0, 3)}))
    assert (batch.targets["weak_labels"] != IGNORE).any(dim=1).tolist() == [False, True, True, True]
    loss = task(batch).losses["weak_labels"]
    loss.sum.backward()
    weights = dict(task.objectives.named_parameters())
    assert weights["weak_labels.outputs.0.weight"].grad[:, 16:].abs().sum() > 0


def test_labels_are_learnt_beside_the_words() -> None:
    encoder = make_encoder()
    objectives = {
        "masked_lm": MaskedLMConfig(mask=MaskConfig(rate=0.5)).build(encoder, seed=0),
        "weak_labels": WeakLabelsConfig(labels=LABELS).build(encoder, seed=0),
    }
    task = PretrainTask(encoder, objectives)
    assert task.weights(0) == {"masked_lm": 1.0, "weak_labels": 1.0}
    batch = task.prepare(batch_of(8))
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        output = task(batch)
        means = {name: total.sum / total.count for name, total in output.losses.items()}
        losses.append({name: mean.item() for name, mean in means.items()})
        optimizer.zero_grad()
        sum(task.weights(0)[name] * mean for name, mean in means.items()).backward()
        optimizer.step()
    assert losses[-1]["masked_lm"] < 0.5 * losses[0]["masked_lm"]
    assert losses[-1]["weak_labels"] < 0.5 * losses[0]["weak_labels"]
    accuracy = task(batch).report["accuracy_gender/weak_labels"]
    assert accuracy.sum == accuracy.count == 7


def test_a_batch_without_labels_gives_a_zero_that_can_be_summed() -> None:
    task = make()
    batch = task.prepare(fake_batch(SPECS))
    loss = task(batch).losses["weak_labels"]
    assert (loss.count, loss.sum.item()) == (0, 0)
    loss.sum.backward()


def test_a_file_tells_the_labels_of_the_clips_that_it_lists(write_file: WriteFile) -> None:
    lines = ("clip-0002,0.9,sad", "clip-0000,0.8,happy", "elsewhere,0.1,angry", "clip-0003,,")
    path = write_file(*lines, header="key,score,emotion")
    task = make(labels={"emotion": LABELS["emotion"]}, file=str(path))
    batch = task.prepare(fake_batch(SPECS))
    assert batch.targets["weak_labels"][:, 0].tolist() == [1, IGNORE, 2, IGNORE]
    assert task.labels == {}  # nothing for the loader to read


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("key,emotions", "a,sad"), "no column 'emotion' in the first line; Did you mean emotions"),
        (("key,emotion", "a,sad", "b,glad"), "line 3: emotion is 'glad', which is none of angry, happy, sad"),
        (("key,emotion", "a,sad", "a,sad"), "the key 'a' comes twice"),
        (("key,emotion", "a"), "line 2: the key or a field is missing"),
        (("key,emotion",), "lists no clip"),
    ],
)
def test_a_bad_file_is_refused_with_the_line(write_file: WriteFile, lines: tuple[str, ...], message: str) -> None:
    path = write_file(*lines[1:], header=lines[0])
    with pytest.raises(UserError, match=message):
        make(labels={"emotion": LABELS["emotion"]}, file=str(path))


def test_another_file_is_another_identity(write_file: WriteFile) -> None:
    labels = {"emotion": LABELS["emotion"]}
    first = make(labels=labels, file=str(write_file("a,sad"))).identity
    assert make(labels=labels, file=str(write_file("a,sad"))).identity == first
    assert make(labels=labels, file=str(write_file("a,happy"))).identity != first
    assert make(labels=labels).identity != first


def shards(sources: list[dict[str, str]] | None = None, **labels: dict[str, int]) -> Any:
    """What a shard set tells of its clips: training clips a, b, c and a held-out one."""
    members = [{"json": json.dumps({"source": source}).encode()} for source in sources or [{}] * 3]

    class Split(list[str]):
        keys = property(list)

        def read(self, sample_id: int, extensions: list[str]) -> dict[str, bytes]:
            return members[sample_id]

    splits = {"train": Split("abc"), "valid": Split("v")}
    infos = [SimpleNamespace(split=name) for name in splits]
    manifest = SimpleNamespace(labels=labels, numbers={}, shards=infos, written=4)
    return SimpleNamespace(manifest=manifest, splits=tuple(splits), split=splits.__getitem__, location="the set")


def test_how_many_clips_have_a_label_is_told(write_file: WriteFile) -> None:
    only = {"emotion": LABELS["emotion"]}
    task = make(labels=only, file=str(write_file("b,sad", "v,sad", "z,sad", "c,happy")))
    assert task.check_data(shards())[0] == "weak_labels: emotion: 2 of 3 training clips (angry 0, happy 1, sad 1)"
    assert "1 of 4 keys" in task.check_data(shards())[1]
    told = make(labels=only).check_data(shards(emotion={"sad": 3}))
    assert told == ["weak_labels: emotion: 3 of 4 clips (sad 3)"]
    told = make(labels={"gender": LABELS["gender"]}).check_data(shards([{"gender": "m"}, {}, {"gender": "f"}]))
    assert told == ["weak_labels: gender: 2 of 3 clips (f 1, m 1)"]


def test_labels_that_no_clip_has_are_refused(write_file: WriteFile) -> None:
    only = {"emotion": LABELS["emotion"]}
    with pytest.raises(UserError, match=r"none of the 3 training clips; its keys are like 'v', theirs like 'a'"):
        make(labels=only, file=str(write_file("v,sad"))).check_data(shards())
    with pytest.raises(UserError, match=r"no clip has the label 'emotion'.*Did you mean emotions\?"):
        make(labels=only).check_data(shards([{"video": "x"}] * 3, emotions={"sad": 3}))
    with pytest.raises(UserError, match=r"the set: emotion is 'calm', which is none of"):
        make(labels=only).check_data(shards(emotion={"sad": 3, "calm": 1}))


def test_a_property_of_a_clip_serves_as_its_label() -> None:
    """VoxCeleb2's genders are such; a label of the same name goes first."""

    def sample(source: dict[str, str], labels: dict[str, str]) -> Sample:
        nothing = {"speaker": "", "split": "train", "duration_s": 1.0, "has_audio": False, "has_video": False}
        return Sample(
            record=ClipRecord(key="a", words=None, source=source, labels=labels, **nothing),  # type: ignore[arg-type]
            epoch=0,
            steps={},
        )

    samples = [sample({"gender": "m"}, {}), sample({"gender": "m"}, {"gender": "f"}), sample({"set": "dev"}, {})]
    assert collate(samples, SPECS, {"gender": ("f", "m")}).labels["gender"].tolist() == [1, 0, -1]


def test_the_labels_it_trains_on_are_told_with_their_source() -> None:
    given = {"gender": ["f", "m"], "emotion": ["happy", "sad"]}
    assert WeakLabelsConfig(labels=given).labels_used() == ("gender (of the shards)", "emotion (of the shards)")
    assert WeakLabelsConfig(labels=given, file="a.csv").labels_used() == ("gender (of a file)", "emotion (of a file)")


def test_a_config_names_labels_and_classes() -> None:
    source = {"weak_labels": {"labels": {"gender": ["f", "m"]}}}
    given = config.load(ObjectivesConfig, source, ["weak_labels.weight=0.3"])
    assert given.weak_labels == WeakLabelsConfig(labels={"gender": ["f", "m"]}, weight=0.3)


@pytest.mark.parametrize(
    ("labels", "message"), [({}, "give at least one"), ({"gender": ["f"]}, "two different"), ({"g": ["a", "a"]}, "g: ")]
)
def test_labels_without_a_choice_are_refused(labels: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.load(ObjectivesConfig, {"weak_labels": {"labels": labels}})


def test_a_vector_that_the_encoder_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the encoder has no 'audo'. Did you mean audio\?"):
        WeakLabels(WeakLabelsConfig(labels=LABELS, pooled="audo"), make_encoder())
