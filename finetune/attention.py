"""What a fine-tuned model attends to in chosen clips, and what it says of them; HELP is the command's."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from finetune import losses
from finetune.config import FinetuneConfig
from finetune.outcome import read_best
from finetune.task import FinetuneTask, Labels
from shards.divisions.divisions import divisions, read_list
from shards.divisions.truth import Truth, has_all_labels
from shards.pictures.attention_clips import Said, Subject, Wanted, choose, draw, find, read
from shards.progress import progress
from shards.reading.index import ShardSet
from triptych import config as configs
from triptych.batch import Batch
from triptych.config import UserError
from triptych.evaluation import answers
from triptych.models import load
from triptych.models.attention_maps import stacks
from triptych.protocols import registry
from triptych.protocols.protocol import Protocol
from triptych.training.checkpoint import Checkpoints, find_damage
from triptych.training.distributed import Distributed

HELP = """usage: python -m finetune.attention RUN out=FOLDER [keys=[KEY,KEY]] [stack=NAME] [layer=-1] [shards=SHARDS]

Draw what a fine-tuned model attends to in chosen clips, over time and across modalities, with what it says of them.

RUN is a run folder of a fine-tuning (<out>/runs/pretrained-seed-0); <out> itself where it has one run. The weights are
those of the step that valid chose. Keys are those of `python -m shards show`, of clips in any split; without keys, two
held-out clips that the model gets right and two that it gets wrong. In FOLDER there are then, of each clip (a / in its
key becomes a +):

KEY.png         frames, sound and words over one axis in seconds, and under them the attention, mean over the heads: of
                a CLS, as SSE-FT has one a modality, a curve for each modality that it attends to; of steps, a row each;
                of whole modalities a bar each. The title has the label, and what the model says of the clip.
KEY.heads.png   the same, head by head.

attention.json  the weights [heads, queries, keys] behind the pictures, rounded, with the times of all steps (null: a
                CLS), the label and the prediction.

stack=NAME draws one stack, or all whose names begin with it; layer=1 is its first layer, -1 its last:
  sse_ft      inter_modal, self_attention; inter_modal.text_from_audio: the CLS of the words over the sound
  mult        crossmodal, memory; crossmodal.text_from_audio
  attention   attention, of modalities to modalities
  any         towers, towers.audio: inside an encoder of transformers; cross, where the head reads what is fused
Without it: those between modalities, or else all. A wrong name tells which there are.

shards=SHARDS reads other clips, or the same in another place. A clip that lacks a modality is drawn without it.
"""

NUM_EXAMPLES = 4
"""Clips that are drawn where none is named: half of them right, half wrong, if there are."""
NUM_LOOKED_AT = 32
"""Held-out clips, spread over all of them, among which these are looked for."""


@dataclass(frozen=True, kw_only=True)
class FinetunedConfig(Wanted):
    """Which attention of which clips is drawn."""

    keys: tuple[str, ...] = ()
    """Of the clips, in any split; none are some of the held-out ones."""
    shards: str = ""
    """Shard set of the clips; empty is that of the run."""


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """A model as a fine-tuning left it."""

    folder: Path
    """Of its run."""
    config: FinetuneConfig
    protocol: Protocol
    task: FinetuneTask
    """In evaluation mode, on the CPU."""
    shown: tuple[str, ...]
    """Modalities that the head reads."""


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Draw the pictures and write the numbers.

    Args:
        target: a run's folder, or that of a fine-tuning with one run.
        overrides: of FinetunedConfig.

    Returns:
        The exit status, 0.

    Raises:
        UserError: as `open_run`; an unknown key, stack or layer, a model without attention, or clips that it cannot
            read; no keys, and clips that are not the run's.
    """
    wanted, console = configs.load(FinetunedConfig, {}, overrides), Console()
    model = open_run(Path(target))
    shard_set = ShardSet(wanted.shards or model.config.shards, wanted.cache)
    places = find(shard_set, wanted.keys) if wanted.keys else {}
    choose(subject_of(model, shard_set, {}), wanted)  # mistakes, before all records are read
    splits = splits_of(model, shard_set)
    subject = subject_of(model, shard_set, splits)
    draw(subject, shard_set, places or find(shard_set, examples(subject, shard_set, splits)), wanted, console)
    return 0


def open_run(folder: Path) -> Finetuned:
    """Load the model of a run, with the weights of the step that valid chose.

    Args:
        folder: of the run, or of a fine-tuning that has one.

    Raises:
        UserError: there is no run, or there are several; one that has chosen no step yet, or whose files are damaged.
    """
    folder = _find_run(folder)
    try:
        config = configs.load(FinetuneConfig, folder / "config.yaml")
    except UserError as error:
        raise UserError(f"{folder}: no run of a fine-tuning that this version reads; {error}") from None
    checkpoint = _chosen(folder)
    if damage := find_damage(checkpoint):
        raise UserError(f"{checkpoint}: is damaged ({damage}); take another run, or train it again")
    protocol = registry.find(config.protocol, tuple(config.classes))
    encoder = load.load(checkpoint / "encoder")  # whatever the training started from may be gone by now
    shown = tuple(config.inputs.split("+") if config.inputs else encoder.inputs)
    head = config.head.build(encoder, shown, answers.num_outputs(protocol), answers.rate_of(protocol))
    weights = load_file(checkpoint / "model.safetensors")
    try:
        head.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("head.")})
    except RuntimeError as error:
        raise UserError(f"{checkpoint}: is not of the head in {folder / 'config.yaml'} ({error})") from None
    task = FinetuneTask(encoder, head, losses.build(config.loss, protocol, None))
    return Finetuned(folder=folder, config=config, protocol=protocol, task=task.eval(), shown=shown)


def subject_of(model: Finetuned, shard_set: ShardSet, splits: Mapping[str, str]) -> Subject:
    """The model as what draws it wants it.

    Args:
        model: of a run.
        shard_set: of the clips, with their labels.
        splits: of `splits_of`, for the titles.
    """
    protocol, task, truth = model.protocol, model.task, Truth(shard_set, model.protocol)

    def say(batch: Batch) -> Said:
        (key,) = batch.keys
        outputs = task.loss.said(task.outputs(batch).double())[0].cpu()
        known = truth.of([key])
        label, split = _label(protocol, known), splits.get(key)
        said, numbers = _said(protocol, outputs)
        parts = [f"{split} clip" if split else "", f"labelled {label}" if label else "no label"]
        facts = {"split": split, "label": label or None, "said": said or None, "outputs": numbers}
        if label and protocol.kind != "series":
            facts["right"] = _is_right(protocol, outputs, known)
        return Said(title="   ".join(filter(None, [*parts, f"model: {said}" if said else ""])), facts=facts)

    return Subject(
        source=str(model.folder),
        model=task,
        stacks=_stacks(task),
        encoder=task.encoder,
        shown=model.shown,
        say=say,
        labels=protocol.labels,
        prepare=Labels(protocol),
    )


def splits_of(model: Finetuned, shard_set: ShardSet) -> dict[str, str]:
    """Key -> what a clip was to the run: train, valid or test; nothing of clips that are not the run's.

    Reads the records of all clips where a rule divided them.
    """
    if _kept(model.folder, "data.json") != shard_set.identity:
        return {}
    config = model.config
    if not config.split:
        return {key: split for split in shard_set.splits for key in shard_set.split(split).keys}
    found = divisions(shard_set, model.protocol, config.split, read_list(config.listed))
    kept = _kept(model.folder, "division.json")
    divided = [one for one in found if {one.name: one.facts["split SHA-256"]} == kept]
    return {key: split for one in divided for split, keys in one.keys.items() for key in keys}


@torch.no_grad()
def examples(subject: Subject, shard_set: ShardSet, splits: Mapping[str, str]) -> list[str]:
    """Keys of some held-out clips, the same at every call: right ones and wrong ones, if possible with all modalities
    and of several labels.

    Raises:
        UserError: none is known to be held out.
    """
    held_out = [key for key, split in splits.items() if split == "test"]
    if not held_out:
        raise UserError(
            f"keys: which clips of {shard_set.location} {subject.source} has not seen is not known, as they are not "
            "those that it was trained with; name some with keys=[KEY,KEY]"
        )
    places = find(shard_set, held_out[:: -(-len(held_out) // NUM_LOOKED_AT)])
    found: dict[str, tuple[bool, int]] = {}  # whether something is missing, and how many like it came before
    right: dict[str, bool | None] = {}
    alike: Counter[tuple[Any, ...]] = Counter()
    with progress("looking for clips", len(places)) as advance:
        for key, place in places.items():
            batch = read(subject, shard_set, *place)
            lacks = not all(batch.tracks[modality].present[0] for modality in subject.shown)
            facts = subject.say(batch).facts
            right[key] = facts.get("right")
            kind = (lacks, right[key], facts["label"])
            found[key] = lacks, alike[kind]
            alike[kind] += 1
            advance(1)
    ordered = sorted(found, key=lambda key: found[key])
    half = NUM_EXAMPLES // 2
    chosen = [key for which in (True, False) for key in [key for key in ordered if right[key] is which][:half]]
    return [*chosen, *(key for key in ordered if key not in chosen)][:NUM_EXAMPLES]


def _find_run(folder: Path) -> Path:
    if (folder / "checkpoints").is_dir():
        return folder
    runs = sorted(path.parent for path in folder.glob("runs/**/checkpoints") if path.is_dir())
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise UserError(f"{folder}: no run of a fine-tuning; give <out>/runs/pretrained-seed-0, as `finetune` left it")
    raise UserError(f"{folder}: has {len(runs)} runs; give one of them: {', '.join(map(str, runs))}")


def _chosen(folder: Path) -> Path:
    """The checkpoint of the step that valid chose."""
    try:
        best = read_best(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'best.json'}: is damaged ({error}); let the run go on first") from None
    if best is None:
        raise UserError(f"{folder}: valid has not chosen a step of this run yet; let it go on first")
    alone = Distributed(rank=0, world=1, local_rank=0, device=torch.device("cpu"), backend="gloo")
    return Checkpoints(folder / "checkpoints", 1, alone).path(best.step)


def _stacks(task: FinetuneTask) -> dict[str, str]:
    """Short name -> name in the task, of the stacks that run, those of the head first."""
    found = {}
    for name in sorted(stacks(task), key=lambda name: not name.startswith("head.")):
        part, _, inside = name.partition(".")
        if part == "head":
            found[inside.removeprefix("model.").removesuffix(".layers")] = name
        elif part == "encoder" and (task.head.fuses or not inside.startswith("cross.")):
            found[inside.removesuffix(".layers")] = name
    return found


def _kept(folder: Path, name: str) -> Any:
    """What RunFolder.keep wrote."""
    try:
        return json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / name}: tells which clips the run was shown, and cannot be read: {error}") from None


def _label(protocol: Protocol, truth: Any) -> str:
    """What a clip is labelled as, of what Truth.of says of it alone; empty where it has no label."""
    if not has_all_labels(truth)[0]:
        return ""
    if protocol.kind == "series":
        return f"{' and '.join(target.label for target in protocol.targets)} over time"
    return _spoken(protocol, truth[0])


def _said(protocol: Protocol, outputs: torch.Tensor) -> tuple[str, Any]:
    """What the outputs of a clip mean, for a reader; and as numbers: probabilities, of sentiment and series values."""
    if protocol.kind == "series":
        return "", outputs.tolist()
    answer = answers.said(protocol, outputs[None])[0]
    spoken = _spoken(protocol, answer)
    if protocol.kind == "sentiment":
        return spoken, float(answer)
    if protocol.kind == "emotions":
        shares = outputs.sigmoid().tolist()
        return spoken, dict(zip((target.label for target in protocol.targets), shares, strict=True))
    chances = answers.probabilities(protocol, outputs)
    assert chances is not None
    return f"{spoken} ({100 * chances[answer]:.0f} %)", dict(zip(protocol.classes, chances.tolist(), strict=True))


def _is_right(protocol: Protocol, outputs: torch.Tensor, truth: Any) -> bool:
    """Whether the answer is the label: all emotions of several, the sign of a sentiment (0 is positive)."""
    answer = answers.said(protocol, outputs[None])[0]
    if protocol.kind == "sentiment":
        return bool((answer < 0) == (truth[0] < 0))
    return bool((answer == truth[0]).all())


def _spoken(protocol: Protocol, answer: Any) -> str:
    if protocol.kind == "classes":
        return protocol.classes[int(answer)]
    if protocol.kind == "sentiment":
        return f"{float(answer):+.2f}"
    there = [target.label for target, yes in zip(protocol.targets, answer, strict=True) if yes]
    return " and ".join(there) or "no emotion"


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if (status := configs.help_status(arguments, HELP)) is not None:
        return status
    return run(arguments[0], arguments[1:])


if __name__ == "__main__":
    configs.run_command(main)
