"""The rules of docs/extending.md that every pretraining objective keeps, as far as two made-up batches can tell."""

import pickle
from dataclasses import replace

import torch
from torch import Tensor

from pretrain.objectives.objective import PretrainTask
from triptych.batch import Batch, Track, fake_batch
from triptych.modalities import FeatureSpec
from triptych.models.load import SystemConfig, build
from triptych.training.compare import compare
from triptych.training.distributed import alone
from triptych.training.step_loss import StepLoss
from triptych.training.task import Total

WORDS = tuple(f"w{number}" for number in range(20))
SPECS = {
    "text": FeatureSpec(name="words", modality="text", version=1, rate_hz=None, shape=(), dtype="int64"),
    "audio": FeatureSpec(name="lfbe", modality="audio", version=1, rate_hz=20.0, shape=(8,), dtype="float16"),
    "video": FeatureSpec(name="crops", modality="video", version=1, rate_hz=10.0, shape=(8, 8), dtype="uint8"),
}
MOODS = ("calm", "loud")


def make_task(system: SystemConfig, name: str, config: object, seed: int = 5) -> PretrainTask:
    """An encoder of all three modalities and one objective."""
    torch.manual_seed(0)
    encoder = build(system, SPECS, WORDS)
    return PretrainTask(encoder, {name: config.build(encoder, seed)})  # type: ignore[attr-defined]


def make_batch(*absent: tuple[str, int]) -> Batch:
    """Five clips of different lengths and epochs with a label `mood`, of which one has none."""
    lacking: dict[str, tuple[int, ...]] = {}
    for modality, clip in absent:
        lacking[modality] = (*lacking.get(modality, ()), clip)
    batch = fake_batch(SPECS, num_clips=5, num_words=8, absent=lacking)
    return replace(batch, epochs=(0, 0, 1, 1, 2), labels={"mood": torch.tensor([0, 1, 1, -1, 0])})


def take(batch: Batch, clip: int) -> Batch:
    """One clip of a batch, without the padding that its neighbours brought."""
    tracks = {}
    for name, track in batch.tracks.items():
        length = max(1, int(track.mask[clip].sum()))
        values, mask, times = (x[clip : clip + 1, :length] for x in (track.values, track.mask, track.times))
        tracks[name] = Track(values=values, mask=mask, times=times)
    labels = {name: values[clip : clip + 1] for name, values in batch.labels.items()}
    return Batch(keys=batch.keys[clip : clip + 1], epochs=batch.epochs[clip : clip + 1], tracks=tracks, labels=labels)


def check_prepare(task: PretrainTask, name: str) -> None:
    """It adds targets of the objective's name and nothing else, is picklable, and depends on the clip alone."""
    batch, prepare = make_batch(("video", 1)), task.objectives[name].prepare
    prepared = prepare(batch)
    assert all(key == name or key.startswith(f"{name}/") for key in prepared.targets), prepared.targets.keys()
    for modality, track in batch.tracks.items():
        assert all(same(vars(track)[part], vars(prepared.tracks[modality])[part]) for part in vars(track)), modality
    for again in (prepare(batch), pickle.loads(pickle.dumps(prepare))(batch)):
        assert all(same(again.targets[key], values) for key, values in prepared.targets.items())
    for clip in range(len(batch)):
        for key, values in prepare(take(batch, clip)).targets.items():
            own = prepared.targets[key][clip : clip + 1]
            assert same(own if own.ndim == 1 else own[:, : values.shape[1]], values), (key, clip)


def check_losses(task: PretrainTask, name: str) -> None:
    """Counts before the forward are the forward's, sums are finite, and names are the same whatever clips lack."""
    everything = [(modality, clip) for modality in SPECS for clip in range(5)]
    named = set()
    for absent in ([], [("video", 1), ("audio", 2), ("text", 3)], everything):
        batch = task.prepare(make_batch(*absent))
        task.train()
        before = task.counts(batch)[name]
        loss, report = losses_of(task, batch)
        assert loss.count == before, absent
        assert loss.sum.ndim == 0
        assert loss.sum.isfinite()
        if absent == everything:
            assert (before, loss.sum.item()) == (0, 0.0)
        named.add(frozenset(report))
        assert all(total.count >= 0 and not total.sum.requires_grad for total in report.values())
    assert len(named) == 1


def check_weights(task: PretrainTask) -> None:
    """All weights take part, also where a clip lacks something; StepLoss refuses a batch of which one does not."""
    wrapped = StepLoss(task, "fp32", refuse_unused=True)
    for absent in ([], [("video", 1), ("audio", 2)]):
        batch = task.prepare(make_batch(*absent))
        wrapped(batch, dict.fromkeys(task.objectives, 1.0))


def losses_of(task: PretrainTask, batch: Batch) -> tuple[Total, dict[str, Total]]:
    """The loss and report of the task's one objective."""
    output, embedded = task(batch), task.embed(batch)
    losses, report = dict(output.losses), dict(output.report)
    if embedded:
        losses, report = compare(task, [embedded], {}, alone(torch.device("cpu"))).record  # type: ignore[assignment]
    (loss,) = losses.values()
    return loss, dict(report)


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors are equal, or both are none."""
    return one is other or (one is not None and other is not None and torch.equal(one, other))
