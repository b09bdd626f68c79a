import json

import pytest
import yaml

from triptych import report
from triptych.config import UserError
from triptych.evaluation import results

SCORE = {"value": 0.25, "low": 0.2, "high": 0.3}
EVALUATION = {
    "title": "Linear probe",
    "protocol": {"metrics": ["WA"], "split_sha256": "abc"},
    "systems": [
        {
            "system": "majority class",
            "inputs": "-",
            "note": "",
            "metrics": {"WA": {"value": 0.25, "low": 0.2, "high": 0.3}},
        }
    ],
    "differences": [],
}


def make_run(folder, seed, rate, loss, test=True):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": folder.name, "seed": seed, "runs": "x", "rate": rate}))
    lines = [
        {"step": 10, "loss": 2.0, "time_s": 0.5},
        {"step": 10, "valid/loss/masked_lm": 1.5},
        {"step": 20, "loss": 1.0, "time_s": 0.3},
        {"step": 20, "valid/loss/masked_lm": 1.25},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if test:
        (folder / "test.json").write_text(json.dumps({"step": 20, "clips": 7, "loss/masked_lm": loss}))
    return folder


def test_runs_that_differ_in_the_seed_only_are_one_row_with_an_interval(tmp_path):
    runs = [make_run(tmp_path / f"a-seed-{seed}", seed, 0.1, 1.0 + seed) for seed in range(3)]
    runs += [make_run(tmp_path / f"b-seed-{seed}", seed, 0.2, 0.5 + seed) for seed in range(3)]
    numbers = report.compare([report.read(run) for run in runs])
    first, second = numbers["rows"]
    assert (first["row"], second["row"]) == ("a-seed", "b-seed")
    assert first["figures"].keys() == {"loss/masked_lm"}  # step and clips are no figures
    loss = first["figures"]["loss/masked_lm"]
    assert loss["value"] == pytest.approx(2.0)
    # t of .975 with two degrees of freedom is 4.3027; standard error 1 / sqrt(3)
    assert loss["high"] - loss["value"] == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert first["train_s"] == [pytest.approx(8.0)] * 3  # 0.4 s on average, 20 steps
    difference = numbers["differences"][0]["figures"]["loss/masked_lm"]
    assert difference["runs"] == [pytest.approx(-0.5)] * 3


def test_a_run_without_test_figures_shows_its_last_validation_and_says_so(tmp_path):
    run = report.read(make_run(tmp_path / "a", 0, 0.1, None, test=False))
    assert run.split == "valid"
    assert run.figures == {"loss/masked_lm": 1.25}


def test_the_command_writes_tables_curves_and_numbers(tmp_path, capsys):
    run = make_run(tmp_path / "a", 0, 0.1, 1.0)
    probe = tmp_path / "probe"
    probe.mkdir()
    (probe / "results.json").write_text(json.dumps(EVALUATION))
    assert report.main([str(run), str(probe), f"out={tmp_path / 'out'}", "title=Mine"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "# Mine" in text
    assert "| a | 1 | test | 1.000 | 20 | 8 |" in text
    assert "majority class" in text
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    assert json.loads((tmp_path / "out" / "results.json").read_text()).keys() == {"title", "pretraining", "evaluation"}
    assert "majority class" in capsys.readouterr().out


def test_mistakes_are_named(tmp_path):
    run = make_run(tmp_path / "a", 0, 0.1, 1.0)
    twin = make_run(tmp_path / "b", 0, 0.1, 1.0)
    with pytest.raises(UserError, match="no run here"):
        report.read(tmp_path)
    with pytest.raises(UserError, match="seed given twice"):
        report.compare([report.read(run), report.read(twin)])
    with pytest.raises(UserError, match="given twice"):
        report.main([str(run), str(run)])
    (twin / "config.yaml").write_text("seeds: [0]")
    with pytest.raises(UserError, match="no pretraining run"):
        report.read(twin)
    with pytest.raises(UserError, match="there are out=FOLDER and title=TEXT"):
        report.main([str(run), "outt=x"])
    other = {**EVALUATION, "protocol": {"metrics": ["WA"], "split_sha256": "other"}}
    with pytest.raises(UserError, match="scored different clips"):
        results.merge([EVALUATION, other])


def test_systems_of_one_name_with_other_numbers_are_both_kept():
    def probed(value):
        row = {"system": "pretrained", "inputs": "audio", "note": "", "metrics": {"WA": {**SCORE, "value": value}}}
        difference = {"first": "pretrained (audio)", "second": "majority class (-)", "metrics": {}}
        return {**EVALUATION, "systems": [*EVALUATION["systems"], row], "differences": [difference]}

    merged = results.merge([probed(0.5), probed(0.6), probed(0.5)])
    assert [row["system"] for row in merged["systems"]] == ["majority class", "pretrained", "pretrained, report 2"]
    assert [row["first"] for row in merged["differences"]] == [
        "pretrained (audio)",
        "pretrained, report 2 (audio)",
        "pretrained (audio)",
    ]
