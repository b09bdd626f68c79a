import numpy as np
import pytest
from sklearn import metrics

from triptych.evaluation import scores

RNG = np.random.default_rng(2)
NAMES = ("happy", "sad", "fear")
TRUTH = (RNG.random((200, 3)) < [0.5, 0.25, 0.1]).astype(int)
PREDICTION = np.where(RNG.random((200, 3)) < 0.7, TRUTH, 1 - TRUTH)


def test_a_table_by_hand():
    truth = [[1, 1], [1, 0], [0, 0], [0, 0]]
    prediction = [[1, 0], [1, 0], [1, 0], [0, 1]]
    table = scores.emotion_scores(truth, prediction, ("happy", "sad"))
    assert list(table) == ["happy", "sad", "average"]
    happy, sad, average = table.values()
    # happy: tp 2 of 2, tn 1 of 2; F1 of 1: 4/5, of 0: 2/3
    assert (happy["w-ACC"], happy["accuracy"], happy["F1"], happy["support"]) == (0.75, 0.75, 0.8, 2)
    assert happy["weighted F1"] == pytest.approx((2 * 4 / 5 + 2 * 2 / 3) / 4)
    # sad: tp 0 of 1, tn 2 of 3; F1 of 1: 0, of 0: 4/6
    assert (sad["accuracy"], sad["F1"], sad["support"]) == (0.5, 0, 1)
    assert sad["w-ACC"] == pytest.approx(1 / 3)
    assert sad["weighted F1"] == pytest.approx(0.75 * 2 / 3)
    assert average["w-ACC"] == pytest.approx((0.75 + 1 / 3) / 2)
    assert average["support"] == 3
    # always negative: F1 of 0 is 2 * 2 / (2 + 4) and 2 * 3 / (3 + 4)
    assert happy["always_negative"] == {
        "w-ACC": 0.5,
        "accuracy": 0.5,
        "F1": 0,
        "weighted F1": pytest.approx(0.5 * 2 / 3),
    }
    assert sad["always_negative"]["weighted F1"] == pytest.approx(0.75 * 6 / 7)
    assert average["always_negative"]["accuracy"] == pytest.approx((0.5 + 0.75) / 2)


def test_a_table_agrees_with_scikit_learn():
    table = scores.emotion_scores(TRUTH, PREDICTION, NAMES)
    for index, name in enumerate(NAMES):
        pair = TRUTH[:, index], PREDICTION[:, index]
        assert table[name]["w-ACC"] == pytest.approx(metrics.balanced_accuracy_score(*pair))
        assert table[name]["weighted F1"] == pytest.approx(metrics.f1_score(*pair, average="weighted"))
        assert table[name]["F1"] == pytest.approx(metrics.f1_score(*pair))
        assert table[name]["accuracy"] == pytest.approx(metrics.accuracy_score(*pair))


@pytest.mark.parametrize(
    ("positives", "expected"),
    [(12135, 0.314), (5856, 0.643), (4903, 0.699), (4208, 0.740), (2262, 0.858), (1850, 0.883)],
)
def test_always_negative_has_the_weighted_f1_that_papers_print(positives, expected):
    """Khare's counts among 23,453 clips: happy, sad, anger, disgust, surprise, fear."""
    truth = (np.arange(23453) < positives).astype(int)
    negative = np.zeros_like(truth)
    assert round(scores.weighted_f1(truth, negative), 3) == expected
    assert scores.weighted_accuracy(truth, negative) == 0.5


@pytest.mark.parametrize(("negatives", "expected"), [(917, 0.877), (905, 0.860), (906, 0.861)])
def test_rows_of_fear_and_surprise_that_equal_always_negative(negatives, expected):
    truth = (np.arange(1000) >= negatives).astype(int)
    assert round(scores.weighted_f1(truth, 0 * truth), 3) == expected


def test_one_choice_among_four_as_four_two_way_decisions():
    truth, prediction = [0, 1, 2, 3, 3], [0, 2, 2, 3, 0]
    table = scores.emotion_scores(
        scores.one_hot(truth, 4), scores.one_hot(prediction, 4), ("neutral", "happy", "sad", "angry")
    )
    assert [table[name]["accuracy"] for name in ("neutral", "happy", "sad", "angry")] == [0.8, 0.8, 0.8, 0.8]
    assert table["happy"]["weighted F1"] == pytest.approx(0.8 * 8 / 9)  # never predicted
    with pytest.raises(ValueError, match="class index 3 with 3"):
        scores.one_hot(truth, 3)


def test_an_emotion_without_positives_is_named():
    with pytest.raises(ValueError, match="sad: weighted accuracy is undefined where a class is absent: 0 positive"):
        scores.emotion_scores([[1, 0], [0, 0]], [[1, 0], [0, 1]], ("happy", "sad"))


@pytest.mark.parametrize(
    ("truth", "prediction", "names", "message"),
    [
        ([[1, 0]], [[1, 0]], ("happy",), "clips, emotions"),
        ([1, 0], [1, 0], ("happy",), "clips, emotions"),
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]], ("happy", "happy"), "different names"),
        ([[1, 0], [0, 1]], [[1, 0], [0, 2]], ("happy", "sad"), "sad: this is a score of one binary label"),
        ([[1, 0], [0, 1]], [[np.nan, 0], [0, 1]], ("happy", "sad"), "happy: prediction: class indices"),
    ],
)
def test_what_is_no_table_of_labels_is_refused(truth, prediction, names, message):
    with pytest.raises(ValueError, match=message):
        scores.emotion_scores(truth, prediction, names)


def test_macro_f1_and_f1_agree_with_scikit_learn():
    generator = np.random.default_rng(1)
    truth, prediction = generator.integers(0, 4, 100), generator.integers(0, 6, 100)  # 4 and 5 only predicted
    assert scores.macro_f1(truth, prediction) == pytest.approx(metrics.f1_score(truth, prediction, average="macro"))
    assert scores.macro_f1([1, 1, 3], [1, 1, 1]) == pytest.approx(0.4)
    assert scores.f1([0, 0], [0, 0]) == 0
    assert scores.f1([True, False], [True, True]) == pytest.approx(2 / 3)
