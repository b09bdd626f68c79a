"""`python -m triptych.release RUN OUT [a.b=c ...]`: make a run's encoder into a folder to hand out.

OUT/
  config.json, model.safetensors, vocabulary.txt     what triptych.models.load.load(OUT) takes
  MODEL_CARD.md     what it is, what it was trained on, what it takes, scores, limits
  LICENSE.md        terms of the weights
  SHA256SUMS        of all of it; `sha256sum -c SHA256SUMS`
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from triptych import config as configs
from triptych.batch import fake_batch
from triptych.config import UserError
from triptych.evaluation import results, tables
from triptych.evaluation.markdown import table
from triptych.files import sha256
from triptych.modalities import FeatureSpec
from triptych.models.encoder import Encoded, Encoder
from triptych.models.load import copy, load
from triptych.training.run import LABELS_USED, read_metrics

HELP = """usage: python -m triptych.release RUN OUT [a.b=c ...]

Make the encoder of a pretraining run into a folder to hand out: weights, vocabulary, model card, checksums. It is
loaded back and tried before OUT appears.

  RUN   runs/<name>, or any folder that holds encoder/ (a checkpoint)
  OUT   a new or empty folder

Overrides:
  results=<probe>/results.json   scores for the model card
  licence="CC BY 4.0"            terms of the weights; not stated otherwise
"""


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """What a release is told."""

    run: Path
    out: Path
    results: str = ""
    """results.json of a linear probe or a fine-tuning; no scores without it."""
    licence: str = ""
    """Terms of the weights, as the publisher grants them."""


def release(config: ReleaseConfig) -> None:
    """Write the release; `config.out` appears whole or not at all.

    Raises:
        UserError: no encoder in the run, a damaged one, unreadable results, or a folder in use.
    """
    encoder = load(config.run / "encoder")  # verifies the hashes
    trained_on = _trained_on(config.run)
    scored = results.read(Path(config.results)) if config.results else None
    results.make_folder(config.out)
    partial = config.out.with_name(config.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy(config.run / "encoder", partial)
    (partial / "MODEL_CARD.md").write_text(_card(encoder, trained_on, scored, config))
    (partial / "LICENSE.md").write_text(_licence(config.licence))
    if config.results:
        shutil.copyfile(config.results, partial / "results.json")
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    sums = "".join(f"{sha256(path)}  {path.relative_to(partial)}\n" for path in files)
    (partial / "SHA256SUMS").write_text(sums)
    _try(encoder, load(partial))
    partial.replace(config.out)


def _try(original: Encoder, released: Encoder) -> None:
    """The released copy says the same as the run's encoder, with all modalities and with each alone."""
    batch = fake_batch(original.inputs, num_clips=2, vocabulary_size=max(1, len(original.words)))
    for shown in (tuple(original.inputs), *((name,) for name in original.inputs)):
        with torch.no_grad():
            expected, found = (_flat(encoder.encode(batch.keep(shown))) for encoder in (original, released))
        if not torch.isfinite(found).all():
            raise UserError(f"the encoder gives values that are not finite for {'+'.join(shown)}; not released")
        assert torch.equal(expected, found), f"the released copy differs from the run's encoder for {shown}"


def _flat(encoded: Encoded) -> torch.Tensor:
    return torch.cat(list(encoded.pooled.values()), dim=1)


def _trained_on(run: Path) -> dict[str, str]:
    """What the run's own files say of its training; a checkpoint lies two folders below its run."""
    facts: dict[str, str] = {}
    home = next((folder for folder in (run, *run.parents[:2]) if (folder / "config.yaml").is_file()), None)
    if home is None:
        return facts
    content = (home / "config.yaml").read_text()
    settings = yaml.safe_load(content)
    if objectives := [name for name, given in settings.get("objectives", {}).items() if given is not None]:
        facts["method"] = _method(objectives, home / LABELS_USED)
    elif "protocol" in settings:
        facts["method"] = f"fine-tuned on the labels of {settings['protocol']}"
    started = home / "start.json"
    if started.is_file():
        hashes = json.loads(started.read_text())["sha256"]
        facts["started from"] = (
            f"another encoder, SHA-256 of its model.safetensors `{hashes['model.safetensors']}`; this card does not "
            "say what that one was trained on"
        )
    facts["run"] = f"`{home.name}`, SHA-256 of its config.yaml `{hashlib.sha256(content.encode()).hexdigest()}`"
    metrics = home / "metrics.jsonl"
    if home == run and metrics.is_file() and (rows := read_metrics(metrics)):
        facts["optimizer steps"] = str(rows[-1]["step"])
    data = home / "data.json"
    if data.is_file():
        said = json.loads(data.read_text())
        facts["clips"] = f"{said['corpus']}, {said['clips']} clips over all splits (train was used for the weights)"
        facts["shards"] = f"SHA-256 over their names and hashes `{said['shards_sha256']}`"
    return facts


def _method(objectives: Sequence[str], labels_used: Path) -> str:
    """How it was pretrained, and on which labels, as far as the run recorded it."""
    trained = " and ".join(objectives)
    if not labels_used.is_file():
        return f"pretrained with {trained}; whether labels were used is not recorded"
    if labels := json.loads(labels_used.read_text()):
        return f"pretrained with {trained}; also trained on labels: {', '.join(labels)}"
    return f"self-supervised, {trained}; no label was used in this run"


def _card(
    encoder: Encoder, trained_on: Mapping[str, str], scored: Mapping[str, Any] | None, config: ReleaseConfig
) -> str:
    num_parameters = sum(parameter.numel() for parameter in encoder.parameters())
    lines = [
        f"# {config.out.name}",
        "",
        f"An encoder of {', '.join(encoder.inputs)} for emotion recognition, made with Triptych: {num_parameters:,} "
        f"parameters, vocabulary of {len(encoder.words)} words.",
        "",
        "## Load it",
        "",
        "```python",
        "from triptych.batch import fake_batch",
        "from triptych.models.load import load",
        'encoder = load(".")  # this folder; evaluation mode, on the CPU; damaged files are refused',
        "encoded = encoder.encode(fake_batch(encoder.inputs, vocabulary_size=len(encoder.words)))",
        "```",
        "",
        f"`encoded.pooled` holds {', '.join(f'`{name}` [clips, {width}]' for name, width in encoder.widths.items())}; "
        "`encoded.present` says which rows are real. Any non-empty subset of the modalities may be given.",
        "",
        "## Inputs",
        "",
        *table(
            ["modality", "feature", "steps", "one step", "longest, steps", "settings"],
            "llllrl",
            map(_input_cells, encoder.inputs.values()),
        ),
        "",
        "Times are in seconds from the clip's start.",
        "",
        "## Training",
        "",
        *([f"- {name}: {value}" for name, value in trained_on.items()] or ["- not recorded beside the encoder"]),
        "",
        "## Scores",
        "",
        *_scores(scored),
        "## Intended use and limits",
        "",
        "- For research on emotion expressed in speech, words and faces: as frozen features or as a start for "
        "fine-tuning on labelled clips of your own domain.",
        "- It has learnt from the clips named above, with their languages, speakers and recording conditions. Expect "
        "it to be worse for people and settings that are rare there; measure on your own before relying on it.",
        "- Expressed emotion is not felt emotion. Do not use it to judge single persons, nor where law forbids emotion "
        "inference (in the European Union, at work and in schools).",
        "- Pooled outputs can carry who speaks. Treat them as personal data where the clips are.",
        "",
        "## Licence",
        "",
        _licence(config.licence),
    ]
    return "\n".join(lines)


def _input_cells(spec: FeatureSpec) -> list[str]:
    return [
        spec.modality,
        f"{spec.name} v{spec.version}",
        f"{spec.rate_hz:g} a second" if spec.rate_hz else "one a word" if spec.is_words else "own times",
        f"{'×'.join(map(str, spec.shape)) or 'word id'} {spec.dtype}",
        str(spec.max_length),
        ", ".join(f"{name} {value}" for name, value in spec.settings) or "-",
    ]


def _scores(scored: Mapping[str, Any] | None) -> list[str]:
    if scored is None:
        return ["None were given when this was released; `python -m linear_probe` makes them.", ""]
    protocol = scored["protocol"]
    where = f"{scored['title']}; split SHA-256 `{protocol['split_sha256']}`; selection {protocol['selection']}."
    return [where, "", *tables.table(scored), *([protocol["note"], ""] if protocol["note"] else [])]


def _licence(licence: str) -> str:
    stated = (
        f"The weights are offered under {licence}."
        if licence
        else "The publisher has not stated terms for the weights."
    )
    return (
        f"{stated} The code that loads them is under the Apache License 2.0. The clips that they were trained on have "
        "terms of their own, which may limit what the weights may be used for.\n"
    )


def main() -> int:
    """Run the command; see HELP."""
    arguments = sys.argv[1:]
    if (status := configs.help_status(arguments, HELP, least=2)) is not None:
        return status
    run, out, *overrides = arguments
    config = configs.load(ReleaseConfig, {"run": run, "out": out}, overrides)
    release(config)
    print(f"released: {config.out} (loaded back and tried)")
    return 0


if __name__ == "__main__":
    configs.run_command(main)
