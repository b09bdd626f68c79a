"""The command: files of predictions in, tables out."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from triptych import score
from triptych.config import UserError
from triptych.evaluation import conventions, predictions
from triptych.protocols import registry

RNG = np.random.default_rng(8)


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def run(*arguments):
    """The command; the content of its scores.json."""
    assert score.main([*map(str, arguments), "num_resamples=100"]) == 0
    return json.loads((arguments[0].with_name(f"{arguments[0].stem}-scores") / "scores.json").read_text())


def sheet(numbers, title):
    return next(sheet for sheet in numbers["sheets"] if sheet["title"] == title)


@pytest.fixture
def sentiment(tmp_path):
    truth = RNG.integers(-9, 10, 60) / 3
    rows = [(f"c{index}", value, value + RNG.normal() / 2) for index, value in enumerate(truth)]
    return write(tmp_path / "mine.csv", ["key", "truth", "prediction"], rows)


@pytest.fixture
def classes(tmp_path):
    """As linear_probe and finetune write it: two systems, one with two runs."""
    names = ("angry", "happy", "sad")
    truth = [names[index % 3] if index else "sad" for index in range(30)]
    rows = []
    for system, runs in (("majority class", 1), ("mine", 2)):
        for number in range(runs):
            for index, name in enumerate(truth):
                said = "sad" if system == "majority class" or index < 5 + 2 * number else name
                rows.append([system, "audio", number, f"c{index}", name, said, 0.1, 0.1, 0.8])
    header = ["system", "inputs", "run", "key", "truth", "prediction", *(f"p_{name}" for name in names)]
    return write(tmp_path / "predictions.csv", header, rows)


def test_sentiment_is_scored_under_every_convention_beside_constants(sentiment, tmp_path, capsys):
    numbers = run(sentiment, "kind=sentiment")
    columns = {name for sheet in numbers["sheets"] for name in sheet["columns"]}
    assert set(score.scores.SENTIMENT_SCORES) < columns
    errors = sheet(numbers, "numbers")["systems"]
    given = list(csv.DictReader(sentiment.open()))
    wrong = [abs(float(row["truth"]) - float(row["prediction"])) for row in given]
    mine = errors["predictions"]["mae"]
    assert mine["value"] == pytest.approx(np.mean(wrong))
    assert mine["low"] < mine["value"] < mine["high"]
    zero = next(row for title, row in errors.items() if title.startswith("constant 0"))
    assert zero["mae"]["value"] == pytest.approx(np.mean([abs(float(row["truth"])) for row in given]))
    assert zero["corr"]["value"] == 0
    text = (tmp_path / "mine-scores" / "scores.md").read_text()
    for said in ("MMSA 'Has0'", "cmumosei_round", "95 % bootstrap interval over clips", "| constant"):
        assert said in text
    assert text in capsys.readouterr().out


def test_every_column_says_who_quotes_it(sentiment, classes):
    emotions = predictions.Predictions(
        kind="emotions", names=("happy",), keys=("a", "b"), truth=np.array([[1], [0]]), systems={}
    )
    for given in (predictions.read(sentiment, kind="sentiment"), predictions.read(classes), emotions):
        for filled in conventions.sheets(given, {}):
            assert filled.quoted or all(column.quoted for column in filled.columns)


def test_what_a_probe_writes_is_scored_without_being_told_its_kind(classes):
    numbers = run(classes)
    table = sheet(numbers, "one choice")["systems"]
    assert table["mine (audio)"]["WA"]["runs"] == [pytest.approx(27 / 30), pytest.approx(26 / 30)]
    assert table["majority class (audio)"]["UA"]["value"] == pytest.approx(1 / 3)
    assert table["always sad (majority of these clips)"] == table["majority class (audio)"]
    two_way = sheet(numbers, "each class against the rest: accuracy")["systems"]
    assert two_way["always negative"]["angry"]["value"] == pytest.approx(21 / 30)
    assert list(two_way["mine (audio)"]) == ["angry", "happy", "sad", "average"]


def test_a_protocol_gives_the_order_of_the_classes_and_knows_others(classes, tmp_path):
    numbers = run(classes, "protocol=ravdess")
    order = list(sheet(numbers, "each class against the rest: accuracy")["columns"])
    assert order == [*registry.find("ravdess").classes, "average"]
    other = write(tmp_path / "other.csv", ["truth", "prediction"], [["happy", "hapy"]])
    with pytest.raises(UserError, match=r"other.csv:2: column prediction: no class 'hapy'\. Did you mean happy"):
        predictions.read(other, kind="classes", classes=registry.find("ravdess").classes)


def test_emotions_stand_beside_always_negative_and_an_undefined_score_is_said(tmp_path):
    rows = [[f"c{index}", index % 2, 1, 0, int(index == 3)] for index in range(8)]
    header = ["key", "truth_happy", "prediction_happy", "truth_sad", "prediction_sad"]
    numbers = run(write(tmp_path / "emotions.csv", header, rows), "kind=emotions")
    accuracy = sheet(numbers, "accuracy")["systems"]
    assert accuracy["predictions"]["sad"]["value"] == 7 / 8
    assert accuracy["always negative"]["average"]["value"] == 0.75
    balanced = sheet(numbers, "w-ACC")["systems"]["predictions"]
    assert balanced["happy"]["value"] == 0.5
    assert "0 positive, 8 negative" in balanced["sad"]["undefined"]
    assert "value" not in balanced["average"]
    assert "| predictions | 50.0 [50.0, 50.0] | undefined | undefined |" in "\n".join(score.markdown(numbers))


def test_series_are_scored_by_recording(tmp_path):
    recordings = {"r1": 30, "r2": 50, "r3": 40}
    rows, both = [], []
    for name, length in recordings.items():
        for value in np.cumsum(RNG.normal(size=length)) / 5:
            said = value + RNG.normal() / 5
            rows.append(["series", name, value, said, -value, -value])
            both.append((value, said))
    header = ["kind", "key", "truth_arousal", "prediction_arousal", "truth_valence", "prediction_valence"]
    numbers = run(write(tmp_path / "series.csv", header, rows))
    assert numbers["clips"] == 3
    found = sheet(numbers, "CCC")["systems"]["predictions"]
    assert found["arousal"]["value"] == pytest.approx(score.scores.concordance_correlation(*np.transpose(both)))
    assert found["valence"]["value"] == 1
    assert found["average"]["value"] == pytest.approx((1 + found["arousal"]["value"]) / 2)
    assert sheet(numbers, "CCC")["systems"]["constant: mean"]["average"]["value"] == 0
    apart = sheet(numbers, "CCC per recording")["systems"]["predictions"]["arousal"]["value"]
    assert apart != pytest.approx(found["arousal"]["value"])


def test_against_another_file_whose_clips_are_in_another_order(sentiment, tmp_path):
    header, *rows = list(csv.reader(sentiment.open()))
    worse = [[key, truth, float(truth) - 1] for key, truth, _ in reversed(rows)]
    numbers = run(sentiment, "kind=sentiment", f"against={write(tmp_path / 'other.csv', header, worse)}")
    ((title, cells),) = sheet(numbers, "numbers")["differences"].items()
    assert title == "predictions − the same, other file"
    assert cells["mae"]["value"] == pytest.approx(
        sheet(numbers, "numbers")["systems"]["predictions"]["mae"]["value"] - 1
    )
    assert cells["mae"]["high"] < 0
    assert cells["mae"]["p"] == pytest.approx(2 / 101)


def test_two_systems_of_one_file_can_be_compared(classes):
    same = f"against={classes}"
    numbers = run(classes, same, "system=mine (audio)", "other=majority class (audio)")
    ((title, cells),) = sheet(numbers, "one choice")["differences"].items()
    assert title == "mine (audio) − majority class (audio)"
    assert cells["WA"]["value"] == pytest.approx(53 / 60 - 11 / 30)
    with pytest.raises(UserError, match=r"system: no 'mine \(audo\)'\. Did you mean mine \(audio\)"):
        run(classes, same, "system=mine (audo)")


def test_runs_are_paired_by_wilcoxon(classes):
    numbers = run(classes, f"against={classes}", "system=mine (audio)")
    assert sheet(numbers, "one choice")["differences"]["mine (audio) − the same, other file"]["WA"]["wilcoxon_p"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "not about the same clips: 1 are in one only, as 'c0'"),
        (lambda rows: [[rows[0][0], 2.75, 0], *rows[1:]], "do not agree on the truth of clip 'c0'"),
    ],
)
def test_files_about_other_clips_are_not_compared(sentiment, tmp_path, change, message):
    header, *rows = list(csv.reader(sentiment.open()))
    other = write(tmp_path / "other.csv", header, change(rows))
    with pytest.raises(UserError, match=message):
        run(sentiment, "kind=sentiment", f"against={other}")


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (
            "key,truth,prediction\na,1,2\nb,1,nan\n",
            "sentiment",
            "p.csv:3: column prediction: 'nan' is no finite number",
        ),
        ("key,truth,prediction\na,,2\n", "sentiment", "p.csv:2: column truth: '' is no finite number"),
        ("key,truth,prediction\na,1,2\na,1,2\n", "sentiment", "p.csv:3: column key: 'a' is in line 2 too"),
        ("key,truth\na,1\n", "sentiment", "p.csv:1: no column 'prediction'; there are key, truth"),
        ("truth_sad,truth_sad\n1,1\n", "emotions", "p.csv:1: column 'truth_sad' is there twice"),
        ("truth_sad,prediction\n1,1\n", "emotions", "p.csv:1: no column 'prediction_sad'"),
        ("truth_sad,prediction_sad\n1,0.5\n", "emotions", "p.csv:2: column prediction_sad: '0.5' is not 0 or 1"),
        ("truth,prediction\n1,1\n", "series", "p.csv:1: no column 'key', which names the recording"),
        ("truth,prediction\n1\n", "sentiment", "p.csv:2: 1 columns, the header has 2"),
        ("truth,prediction\n1,1\n", "", "does not say what it predicts; give kind=classes|sentiment"),
        ("truth,prediction\n1,1\n", "sentimen", "kind: no 'sentimen'. Did you mean sentiment"),
        ("kind,truth,prediction\nseries,1,1\n", "classes", "says kind series; kind=classes does not fit"),
        ("split,truth,prediction\ntest,1,1\nvalid,1,1\n", "sentiment", "column split: has test, valid; say which"),
        ("system,key,truth,prediction\nx,a,1,1\ny,b,1,1\n", "sentiment", "y: other clips than the first system"),
        (
            "system,key,truth,prediction\nx,a,1,1\ny,a,2,1\n",
            "sentiment",
            "p.csv:3: column truth: 'a' has another truth",
        ),
        ("truth,prediction\n", "sentiment", "no rows"),
        ("", "sentiment", "no rows"),
    ],
)
def test_a_bad_file_is_told_with_line_and_column(tmp_path, content, kind, message):
    path = tmp_path / "p.csv"
    path.write_text(content)
    with pytest.raises(UserError) as told:
        predictions.read(path, kind=kind)
    assert message in str(told.value)


def test_one_split_can_be_chosen(tmp_path):
    rows = [["test", "a", 1, 1], ["valid", "b", 1, 1]]
    path = write(tmp_path / "p.csv", ["split", "key", "truth", "prediction"], rows)
    assert predictions.read(path, kind="sentiment", split="valid").keys == ("b",)


def test_the_command_says_what_it_is_and_prints_one_line_for_a_mistake(tmp_path):
    command = [sys.executable, "-m", "triptych.score"]
    told = subprocess.run([*command, tmp_path / "absent.csv"], capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("error: ")
    assert "absent.csv" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    with pytest.raises(UserError, match="Did you mean: 'kind'"):
        score.main(["p.csv", "knd=classes"])
