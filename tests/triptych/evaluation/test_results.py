import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from triptych.config import UserError
from triptych.evaluation import results, tables
from triptych.evaluation.baselines import baselines
from triptych.protocols import registry

PROTOCOL = registry.find("ravdess", ("sad", "happy"))


def split(prefix, truth):
    return results.Split(keys=tuple(f"{prefix}{index}" for index in range(len(truth))), truth=np.array(truth))


def example():
    truth = [0, 1, 1, 0, 1, 0, 1, 1]
    splits = {"train": split("a", [0, 1, 1]), "valid": split("b", [0, 1]), "test": split("c", truth)}
    right = np.eye(2)[truth]
    wrong = right.copy()
    wrong[0] = [0, 1]
    both = np.stack([right, wrong])
    systems = [
        *baselines(PROTOCOL, {"": splits["train"].truth}, splits["test"]),
        results.System(name="mine", inputs="audio", predictions=both.argmax(axis=-1), probabilities=both, note="C 1"),
    ]
    return results.Evaluation(
        title="Test",
        protocol=PROTOCOL,
        splits=splits,
        split_rule={"by": "speaker"},
        systems=systems,
        compared=[("mine (audio)", "majority class (-)")],
        drawn="mine (audio)",
        num_resamples=50,
    )


def test_a_report_is_complete(tmp_path):
    numbers = results.write(example(), tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == numbers
    mine = numbers["systems"][1]["metrics"]["WA"]
    assert mine["runs"] == [1.0, 0.875]
    assert mine["value"] == pytest.approx(0.9375)
    assert numbers["systems"][0]["metrics"]["WA"]["value"] == 5 / 8
    assert numbers["systems"][0]["metrics"]["UA"]["value"] == 0.5
    assert numbers["differences"][0]["metrics"]["WA"]["value"] == pytest.approx(0.9375 - 5 / 8)
    text = (tmp_path / "report.md").read_text()
    for said in ("93.8 ± 8.8 [", "0 = sad, 1 = happy", "by speaker", numbers["protocol"]["split_sha256"]):
        assert said in text
    for name in ("bars", "confusion"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 1000


def test_predictions_can_be_scored_again(tmp_path):
    results.write(example(), tmp_path)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(rows) == 8 + 2 * 8
    second = [row for row in rows if row["system"] == "mine" and row["run"] == "1"]
    assert sum(row["truth"] == row["prediction"] for row in second) == 7
    assert float(second[0]["p_happy"]) == 1


def test_the_protocol_block_tells_merged_classes_and_what_the_split_shares():
    made = replace(
        example(),
        protocol=registry.find("iemocap", ("sad", "happy")),
        split_rule={"by": "source", "allow": [], "shared": ["1 speaker in both train and test (Joey)", "2 videos"]},
    )
    text = tables.markdown(results.compute(made), {})
    assert "0 = sad, 1 = happy; excited counts as happy\n" in text
    assert "- split: by source, shared 1 speaker in both train and test (Joey); 2 videos; SHA-256" in text


def test_a_report_never_overwrites(tmp_path):
    (tmp_path / "report.md").write_text("older")
    with pytest.raises(UserError, match="in use"):
        results.make_folder(tmp_path)
