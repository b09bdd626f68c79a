"""Reports of emotions, sentiment, series and of folds: numbers worked out by hand, files that come back equal."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from triptych import score
from triptych.config import UserError
from triptych.evaluation import conventions, predictions, results, tables
from triptych.evaluation.baselines import baselines
from triptych.labels import Number
from triptych.protocols import registry
from triptych.protocols.protocol import Target

EMOTIONS = replace(
    registry.find("mosei_emotion"),
    targets=tuple(Target(label=name, form=Number(), positive_above=0.0) for name in ("happy", "sad")),
    metrics=("w-ACC", "accuracy"),
)
SENTIMENT = replace(registry.find("mosi"), metrics=("acc2_nonzero", "mae"))
SERIES = replace(registry.find("avec2017"), targets=registry.find("avec2017").targets[:2])
CLASSES = registry.find("ravdess", ("sad", "happy"))


def recordings(*values):
    """An object array of [T, E]."""
    units = np.empty(len(values), dtype=object)
    for index, steps in enumerate(values):
        units[index] = np.asarray(steps, dtype=np.float64)
    return units


TRUTH = {
    "emotions": np.array([[1, 0], [1, 0], [0, 1], [0, 1.0]]),
    "sentiment": np.array([-1.0, 0.0, 2.0, 3.0]),
    "series": recordings([[0, 1], [1, 0], [2, 1]], [[3, 0], [4, 1]]),
    "classes": np.array([0, 1, 1, 0]),
}
SAID = {
    "emotions": np.array([[[1, 0], [0, 0], [0, 1], [0, 1]]]),
    "sentiment": np.array([[-0.5, 1.0, 2.5, -1.0]]),
    "series": np.stack([recordings([[0, 0], [1, 0], [2, 0]], [[3, 0], [4, 0]])]),
    "classes": np.array([[0, 1, 0, 0]]),
}
PROTOCOLS = {"emotions": EMOTIONS, "sentiment": SENTIMENT, "series": SERIES, "classes": CLASSES}
KINDS = pytest.mark.parametrize("kind", PROTOCOLS)


def held_out(kind, folds=()):
    truth = TRUTH[kind]
    return results.Split(keys=tuple(f"c{index}" for index in range(len(truth))), truth=truth, folds=folds)


def example(kind, folds=(), said=None):
    protocol, test = PROTOCOLS[kind], held_out(kind, folds)
    train = dict.fromkeys(folds or ("",), TRUTH[kind])
    mine = results.System(name="mine", inputs="audio", predictions=SAID[kind] if said is None else said)
    return results.Evaluation(
        title="Test",
        protocol=protocol,
        splits={"test": test},
        split_rule={"by": "source"},
        systems=[*baselines(protocol, train, test), mine],
        compared=[("mine (audio)", "mine (audio)")],
        drawn="mine (audio)",
        num_resamples=20,
    )


def mine(numbers):
    return numbers["systems"][-1]["metrics"]


def test_emotions_have_a_score_each_and_their_mean():
    found = mine(results.compute(example("emotions")))
    # happy: one of two positives found, both negatives: (1/2 + 1) / 2; sad: all right
    assert found["w-ACC"]["targets"]["happy"]["value"] == 0.75
    assert found["w-ACC"]["targets"]["sad"]["value"] == 1
    assert found["w-ACC"]["value"] == 0.875
    assert found["accuracy"]["value"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["accuracy"]["low"] < found["accuracy"]["value"] <= found["accuracy"]["high"] <= 1


def test_the_interval_of_a_mean_is_that_of_the_mean_of_each_resample():
    made = example("emotions")
    column = conventions.columns_of(EMOTIONS, "accuracy")[-1]
    direct = conventions.scores.bootstrap_interval(column.score, TRUTH["emotions"], SAID["emotions"], num=20)
    found = mine(results.compute(made))["accuracy"]
    assert (found["low"], found["high"]) == pytest.approx(direct)


def test_sentiment_is_percent_only_where_the_score_is():
    numbers = results.compute(example("sentiment"))
    found = mine(numbers)
    assert found["mae"]["value"] == pytest.approx((0.5 + 1 + 0.5 + 4) / 4)
    assert found["acc2_nonzero"]["value"] == pytest.approx(2 / 3)
    row = next(line for line in tables.table(numbers) if line.startswith("| mine"))
    assert "| 66.7 [" in row
    assert "| 1.500 [" in row


def test_series_are_scored_end_to_end_for_each_target():
    found = mine(results.compute(example("series")))["CCC"]
    assert found["targets"]["arousal"]["value"] == 1
    assert found["targets"]["valence"]["value"] == 0  # a constant
    assert found["value"] == 0.5


def test_a_score_is_one_function_for_selection():
    assert conventions.score(EMOTIONS, "w-ACC", TRUTH["emotions"], SAID["emotions"][0]) == 0.875
    # happy: F1 2/3 of two positives, 4/5 of two negatives; sad: all right
    khare = replace(registry.find("mosei_emotion_khare"), targets=EMOTIONS.targets)
    mean = ((0.75 + (2 / 3 + 4 / 5) / 2) / 2 + 1) / 2
    assert conventions.score(khare, khare.select, TRUTH["emotions"], SAID["emotions"][0]) == pytest.approx(mean)
    assert conventions.score(SENTIMENT, "mae", TRUTH["sentiment"], SAID["sentiment"][0]) == 1.5
    assert conventions.score(CLASSES, "UA", TRUTH["classes"], SAID["classes"][0]) == 0.75
    with pytest.raises(ValueError, match="happy: weighted accuracy is undefined"):
        conventions.score(EMOTIONS, "w-ACC", TRUTH["emotions"][:2], SAID["emotions"][0][:2])


def test_an_undefined_score_is_told_and_the_others_stand():
    made = example("emotions")
    truth = TRUTH["emotions"].copy()
    truth[:, 1] = 0
    made = replace(made, splits={"test": replace(made.splits["test"], truth=truth)})
    numbers = results.compute(made)
    found = mine(numbers)
    assert "value" not in found["w-ACC"]
    assert found["w-ACC"]["targets"]["happy"]["value"] == 0.75
    assert found["accuracy"]["value"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    text = tables.markdown(numbers, {})
    assert "mine (audio), w-ACC: sad: weighted accuracy is undefined" in text


def test_folds_have_their_mean_and_the_value_is_of_all_clips_together():
    numbers = results.compute(example("classes", folds=("a", "a", "a", "b")))
    found = mine(numbers)["WA"]
    assert found["value"] == 0.75
    assert found["folds"]["values"] == {"a": pytest.approx(2 / 3), "b": 1}
    assert found["folds"]["mean"] == pytest.approx(5 / 6)
    assert found["folds"]["std"] == pytest.approx((1 / 3) / 2**0.5)
    text = tables.markdown(numbers, {})
    assert "83.3 ± 23.6" in text
    assert "holds out: a (3), b (1)" in text


def test_another_division_into_folds_has_another_hash():
    hashes = {
        results.compute(example("classes", folds=folds))["protocol"]["split_sha256"]
        for folds in (("a", "a", "b", "b"), ("a", "b", "a", "b"), ())
    }
    assert len(hashes) == 3


@KINDS
def test_a_report_of_every_kind_is_complete_and_its_predictions_come_back(kind, tmp_path):
    made = example(kind, folds=("a", "b")[: len(TRUTH[kind])] * (len(TRUTH[kind]) // 2))
    numbers = results.write(made, tmp_path)
    assert results.read(tmp_path / "results.json") == json.loads(json.dumps(numbers))
    text = (tmp_path / "report.md").read_text()
    shown = [line.split("(figures/")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert sorted(shown) == sorted(path.name for path in (tmp_path / "figures").iterdir())
    back = predictions.read(tmp_path / "predictions.csv")
    assert back.kind == kind
    assert list(back.systems) == [system.title for system in made.systems]
    for found, system in zip(results.systems_from(tmp_path / "predictions.csv", made.protocol, made.splits["test"]),
                             made.systems, strict=True):  # fmt: skip
        assert (found.name, found.inputs) == (system.name, system.inputs)
        for one, other in zip(found.predictions.ravel(), system.predictions.ravel(), strict=True):
            assert np.array_equal(one, other)
    folds = [row["fold"] for row in csv.DictReader((tmp_path / "predictions.csv").open()) if row["system"] == "mine"]
    assert set(folds) == {"a", "b"}


def test_the_score_command_agrees_with_the_report(tmp_path, capsys):
    numbers = results.write(example("emotions"), tmp_path)
    assert score.main([str(tmp_path / "predictions.csv"), "num_resamples=100"]) == 0
    sheets = json.loads((tmp_path / "predictions-scores" / "scores.json").read_text())["sheets"]
    found = next(sheet for sheet in sheets if sheet["title"] == "w-ACC")["systems"]["mine (audio)"]
    assert found["average"]["value"] == mine(numbers)["w-ACC"]["value"]


def test_constants_are_those_of_the_training_split():
    train = {
        "classes": np.array([1, 1, 0]),
        "emotions": np.array([[1, 0], [1, 0], [0, 0]]),
        "sentiment": np.array([1.0, 1.0, 4.0]),
        "series": recordings([[1, 0], [3, 0]], [[5, 6]]),
    }
    said = {
        kind: {one.name: one.predictions for one in baselines(PROTOCOLS[kind], {"": train[kind]}, held_out(kind))}
        for kind in train
    }
    assert said["classes"]["majority class"].tolist() == [[1] * 4]
    assert said["emotions"]["always negative"].tolist() == [[[0, 0]] * 4]
    assert said["emotions"]["majority, by emotion"].tolist() == [[[1, 0]] * 4]
    assert said["sentiment"]["constant mean"].tolist() == [[2.0] * 4]
    assert said["sentiment"]["constant median"].tolist() == [[1.0] * 4]
    assert said["series"]["constant mean"][0, 1].tolist() == [[3, 2]] * 2


@KINDS
def test_constants_do_not_look_at_the_truth_of_the_test_clips(kind):
    test = held_out(kind)
    other = replace(test, truth=np.array([1 - truth for truth in test.truth], dtype=test.truth.dtype))
    for one, two in zip(
        *(baselines(PROTOCOLS[kind], {"": TRUTH[kind]}, split) for split in (test, other)), strict=True
    ):
        assert all(map(np.array_equal, one.predictions.ravel(), two.predictions.ravel()))


def test_each_fold_has_the_constant_of_its_own_training_clips():
    test = held_out("classes", folds=("a", "b", "a", "b"))
    (majority,) = baselines(CLASSES, {"a": np.array([0, 0, 1]), "b": np.array([1, 1, 0])}, test)
    assert majority.predictions.tolist() == [[0, 1, 0, 1]]
    assert majority.probabilities[0, 0].tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": ("c0", "c1", "c2", "x")}, r"other clips: 2 of 4 differ, first 'c3', not a test clip here"),
        ({"truth": np.array([-1.0, 0.0, 2.0, 2.0])}, "clip 'c3' has another truth"),
    ],
)
def test_predictions_of_other_clips_or_truth_are_refused(change, message, tmp_path):
    made = example("sentiment")
    results.write(made, tmp_path)
    with pytest.raises(UserError, match=message):
        results.systems_from(tmp_path / "predictions.csv", SENTIMENT, replace(made.splits["test"], **change))


@KINDS
def test_rows_of_files_that_are_there_already_come_once_and_namesakes_are_told_apart(kind, tmp_path):
    made = example(kind)
    results.write(made, tmp_path)
    again = results.systems_from(tmp_path / "predictions.csv", made.protocol, made.splits["test"])
    assert [one.title for one in results.joined(made.systems, again)] == [one.title for one in made.systems]
    other = replace(again[-1], predictions=again[0].predictions)  # by the name of the last, what the first says
    *table, last = results.joined(made.systems, again, [other])
    assert table == list(made.systems)
    assert (last.name, last.inputs) == (f"{other.name}, file 2", other.inputs)
    assert last.predictions is other.predictions


def test_predictions_of_another_protocol_are_refused_and_single_precision_is_not(tmp_path):
    made = example("sentiment")
    results.write(made, tmp_path)
    path = tmp_path / "predictions.csv"
    with pytest.raises(UserError, match="says kind sentiment"):
        results.systems_from(path, CLASSES, made.splits["test"])
    near = replace(made.splits["test"], truth=TRUTH["sentiment"] * (1 + 1e-7))
    assert results.systems_from(path, SENTIMENT, near)[-1].title == "mine (audio)"


def test_published_rows_stand_apart_and_say_whether_their_split_is_this():
    protocol = registry.find("ravdess")
    made = example("classes")
    rows = {
        rule: "\n".join(tables.published(results.compute(replace(made, protocol=protocol, rule=rule))))
        for rule in ("ravdess/hicmae_6fold_valid_is_test", "hicmae_6fold_valid_is_test/2")
    }
    whole, one_fold = rows.values()
    assert "by the split rule of this report: HiCMAE-B, audio and video, fine-tuned\n" in whole
    assert "by the split rule of this report: none\n" in one_fold
    assert "| HiCMAE-B, audio and video, fine-tuned | 87.99 | – | – | hicmae_6fold_valid_is_test |" in whole
    assert tables.published(results.compute(made)) == []  # two classes: nothing there is of two


def test_published_scores_of_single_emotions_have_their_own_table():
    made = replace(example("emotions"), protocol=replace(EMOTIONS, metrics=("w-ACC", "weighted F1", "F1", "accuracy")))
    lines = tables.published(results.compute(made))
    assert "| Franceschini et al. 2022, linear | 68.82 | 62.93 | 67.91 | 62.93 | 72.91 | 64.49 |" in lines


def test_the_threshold_is_told():
    text = tables.markdown(results.compute(example("emotions")), {})
    assert "- decision threshold: probability 0.5 for every emotion, not tuned" in text


def test_reports_of_the_same_clips_by_other_metrics_are_not_merged():
    first, second = (
        {"title": name, "protocol": {"split_sha256": "a", "metrics": [name]}, "systems": [], "differences": []}
        for name in ("mae", "UA")
    )
    with pytest.raises(UserError, match="scored by different metrics"):
        results.merge([first, second])


def test_a_report_of_before_there_were_kinds_is_still_read(tmp_path):
    entry = {"value": 0.25, "low": 0.2, "high": 0.3, "runs": [0.25]}
    row = {"system": "majority class", "inputs": "-", "note": "", "metrics": {"WA": entry}}
    old = {"title": "Old", "protocol": {"metrics": ["WA"]}, "systems": [row], "differences": []}
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert "| majority class | - | 25.0 [20.0, 30.0] |  |" in tables.table(results.read(tmp_path / "results.json"))


@pytest.mark.parametrize(
    "said",
    [np.array([[1.0, np.nan, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0]])],
)
def test_predictions_that_do_not_fit_are_refused(said):
    with pytest.raises(ValueError, match=r"mine \(audio\)"):
        results.compute(example("sentiment", said=said))
