"""Rows of one table; what trains them is replaced by something quick, but for one test."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from finetune import ablation as command
from finetune.ablation import AblationConfig, folder_of, plan, run
from finetune.config import FinetuneConfig
from triptych import config as configs
from triptych.config import UserError
from triptych.evaluation import predictions, results
from triptych.evaluation.baselines import baselines
from triptych.evaluation.results import Evaluation, Split, System
from triptych.protocols import registry

ROWS = AblationConfig(
    rows={"audio": ["inputs=audio"], "no product": ["head.sse_ft.fusion=concatenation"], "full": []}, against="full"
)
SHARE_WRONG = {"audio": 0.5, "no-product": 0.1, "full": 0.0}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "tune.yaml"
    trainer = {"max_steps": 2}
    content = {"protocol": "synthetic", "head": {"sse_ft": {}}, "trainer": trainer, "num_resamples": 50}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Names of the folders that were trained: a row is wrong about its share of the clips."""
    found = []

    def train(config: FinetuneConfig) -> int:
        folder = Path(config.out)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(configs.dump(config))
        found.append(folder.name)
        protocol = registry.find(config.protocol, tuple(config.classes))
        truth = np.arange(80) % len(protocol.classes)
        split = Split(keys=tuple(f"c{number:02d}" for number in range(80)), truth=truth)
        said = truth.copy()
        wrong = int(80 * SHARE_WRONG[folder.name])
        said[:wrong] = (said[:wrong] + 1) % len(protocol.classes)
        inputs = config.inputs or "audio+video"
        own = [
            System(name=name, inputs=inputs, predictions=np.stack([said, truth])) for name in ("from scratch", "tuned")
        ][-len(config.init) :]
        results.write(
            Evaluation(
                title="Fine-tuning",
                protocol=protocol,
                splits={name: split for name in ("train", "valid", "test")},  # noqa: C420
                split_rule={},
                systems=[*baselines(protocol, {"": truth}, split), *own],
                compared=[],
                drawn=own[-1].title,
                num_resamples=config.num_resamples,
                facts={"seeds": "0, 1", "head": str(config.head.sse_ft.fusion)},
            ),
            folder,
        )
        return 0

    monkeypatch.setattr("finetune.train.run", train)
    monkeypatch.setattr(
        "triptych.evaluation.figures.draw", lambda *_: {}
    )  # of the rows' own reports, which takes a while
    return found


def given(out: Path, *overrides: str) -> list[str]:
    return ["encoder=there", "shards=there", f"out={out}", *overrides]


def test_all_rows_stand_in_one_table_beside_their_paired_differences(source: Path, trained: list[str], tmp_path: Path):
    out = tmp_path / "out"
    assert run(ROWS, source, given(out)) == 0
    assert trained == ["audio", "no-product", "full"]
    numbers = json.loads((out / "results.json").read_text())
    constants = [row["system"] for row in numbers["systems"] if row["inputs"] == "-"]
    titles = [f"{row['system']} ({row['inputs']})" for row in numbers["systems"] if row["inputs"] != "-"]
    assert len(constants) == len(set(constants)) > 0
    assert titles == ["audio (audio)", "no product (audio+video)", "full (audio+video)"]
    wa = {row["system"]: row["metrics"]["WA"]["value"] for row in numbers["systems"]}
    assert wa["audio"] == pytest.approx(0.75)  # one of two seeds is wrong about half of the clips
    assert [(one["first"], one["second"]) for one in numbers["differences"]] == [(titles[2], one) for one in titles[:2]]
    assert numbers["differences"][0]["metrics"]["WA"]["value"] == pytest.approx(0.25)
    assert numbers["differences"][0]["metrics"]["WA"]["low"] > 0
    report = (out / "report.md").read_text()
    assert "row no product: `head.sse_ft.fusion=concatenation`" in report
    assert "- seeds: 0, 1" in report  # which all rows share
    assert "- head:" not in report  # which they do not
    assert (out / "figures" / "bars.png").stat().st_size > 0
    assert results.read(out / "results.json") == numbers
    said = predictions.read(out / "predictions.csv", kind="classes")
    assert list(said.systems) == titles
    assert [(runs == said.truth).mean() for runs in said.systems.values()] == pytest.approx([0.75, 0.95, 1.0])


def test_finished_rows_are_kept_and_others_trained(source: Path, trained: list[str], tmp_path: Path):
    out = tmp_path / "out"
    fewer = replace(ROWS, rows={name: ROWS.rows[name] for name in ("audio", "full")})
    run(fewer, source, given(out))
    trained.clear()
    run(ROWS, source, given(out, "workers=1"))  # which changes no result
    assert trained == ["no-product"]
    with pytest.raises(UserError, match=r"audio: is finished, with another seeds; give another out"):
        run(ROWS, source, given(out, "seeds=[5]"))


def test_rows_from_several_initial_weights_are_told_apart(source: Path, trained: list[str], tmp_path: Path):
    run(ROWS, source, given(tmp_path / "out", "init=[pretrained,random]"))
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    names = [row["system"] for row in numbers["systems"] if row["inputs"] != "-"]
    assert names[:2] == ["audio, from scratch", "audio, tuned"]
    assert [one["first"] for one in numbers["differences"]] == [
        f"full, {kind} (audio+video)" for _ in range(2) for kind in ("from scratch", "tuned")
    ]


def test_a_row_that_is_stopped_stops_the_command(source: Path, trained: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr("finetune.train.run", lambda config: 75)
    assert run(ROWS, source, given(tmp_path / "out")) == 75
    assert not (tmp_path / "out" / "report.md").exists()


def test_mistakes_are_told_before_anything_is_trained(source: Path, trained: list[str], tmp_path: Path):
    with pytest.raises(UserError, match=r"row 'two': .*fuson"):
        plan(AblationConfig(rows={"one": [], "two": ["head.sse_ft.fuson=cls"]}, against="one"), source, given(tmp_path))
    with pytest.raises(ValueError, match="Did you mean full"):
        AblationConfig(rows={"full": []}, against="ful")
    with pytest.raises(ValueError, match="same folder"):
        AblationConfig(rows={"a b": [], "a-b": []}, against="a b")
    assert not trained


def test_a_row_cannot_leave_its_folder():
    assert folder_of("../Text and /audio") == "text-and-audio"


def test_the_command_explains_itself(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ablation", "--help"])
    assert command.main() == 0
    assert "against: full" in capsys.readouterr().out


@pytest.mark.slow
def test_two_heads_are_trained_and_compared(tones: Path, tmp_path: Path):
    source = tmp_path / "tune.yaml"
    source.write_text(
        yaml.safe_dump(
            {
                "encoder": str(tones / "pairwise"),
                "shards": str(tones / "shards"),
                "out": str(tmp_path / "out"),
                "classes": ["happy", "sad"],
                "seeds": [0],
                "global_batch": 4,
                "num_resamples": 20,
                "trainer": {"max_steps": 2, "log_every": 1, "evaluate_every": 2},
            }
        )
    )
    small = "head.sse_ft={self_attention_heads: 1, inter_modal_heads: 1, feedforward: 8}"
    rows = AblationConfig(rows={"sse": [small], "mult": ["head.mult={width: 4, heads: 2, layers: 1}"]}, against="sse")
    assert run(rows, source, []) == 0
    titles = [row["system"] for row in json.loads((tmp_path / "out" / "results.json").read_text())["systems"]]
    assert titles[-2:] == ["sse", "mult"]
