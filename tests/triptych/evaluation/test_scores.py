import numpy as np
import pytest
from sklearn import metrics

from triptych.evaluation import scores

RNG = np.random.default_rng(3)
TRUTH = RNG.integers(0, 5, 300)
PREDICTION = np.where(RNG.random(300) < 0.6, TRUTH, RNG.integers(0, 6, 300))


def test_scores_by_hand():
    truth, prediction = [0, 0, 0, 1], [0, 0, 1, 1]
    assert scores.accuracy(truth, prediction) == 0.75
    assert scores.unweighted_accuracy(truth, prediction) == pytest.approx((2 / 3 + 1) / 2)
    # tp 1, n 3, p 1, tn 2: (1 * 3 / 1 + 2) / 6
    assert scores.weighted_accuracy(truth, prediction) == pytest.approx(5 / 6)
    # F1 of class 0: 2*2/(3+2); of class 1: 2*1/(1+2); weights 3/4 and 1/4
    assert scores.weighted_f1(truth, prediction) == pytest.approx(0.75 * 0.8 + 0.25 * 2 / 3)
    assert scores.confusion(truth, prediction, 2).tolist() == [[2, 1], [0, 1]]


def test_scores_agree_with_scikit_learn():
    assert scores.accuracy(TRUTH, PREDICTION) == pytest.approx(metrics.accuracy_score(TRUTH, PREDICTION))
    recall = metrics.recall_score(TRUTH, PREDICTION, average="macro", labels=range(5))
    assert scores.unweighted_accuracy(TRUTH, PREDICTION) == pytest.approx(recall)
    f1 = metrics.f1_score(TRUTH, PREDICTION, average="weighted", zero_division=0)
    assert scores.weighted_f1(TRUTH, PREDICTION) == pytest.approx(f1)
    binary_truth, binary_prediction = TRUTH > 2, PREDICTION > 2
    assert scores.weighted_accuracy(binary_truth.astype(int), binary_prediction.astype(int)) == pytest.approx(
        metrics.balanced_accuracy_score(binary_truth, binary_prediction)
    )


def test_a_class_that_is_only_predicted_does_not_enter_ua():
    assert scores.unweighted_accuracy([0, 0, 1, 1], [0, 2, 1, 1]) == 0.75


def test_weighted_accuracy_says_where_it_is_undefined():
    with pytest.raises(ValueError, match="undefined where a class is absent: 0 positive, 3 negative"):
        scores.weighted_accuracy([0, 0, 0], [0, 1, 0])


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 1], [0, np.nan], "prediction: class indices are wanted"),
        ([0, 0.5], [0, 1], "truth: class indices are wanted"),
        ([0, -1], [0, 1], "without the label"),
        ([0, 1], [0], "one class index a clip"),
        ([], [], "no clips"),
    ],
)
@pytest.mark.parametrize("score", [scores.accuracy, scores.unweighted_accuracy, scores.weighted_f1])
def test_what_is_no_class_index_is_refused(score, truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        score(truth, prediction)


def test_the_interval_of_accuracy_is_the_binomial_one():
    truth = np.zeros(400, dtype=int)
    prediction = (np.arange(400) >= 320).astype(int)
    low, high = scores.bootstrap_interval(scores.accuracy, truth, prediction, num=2000)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert low == pytest.approx(0.8 - half, abs=0.01)
    assert high == pytest.approx(0.8 + half, abs=0.01)


def test_the_interval_covers_the_true_accuracy_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        prediction = (generator.random(80) > 0.7).astype(int)
        low, high = scores.bootstrap_interval(scores.accuracy, np.zeros(80, int), prediction, num=100, seed=trial)
        hits += low <= 0.7 <= high
    assert 85 <= hits <= 100


def test_the_interval_narrows_with_more_clips_and_is_repeatable():
    def width(num_clips: int) -> float:
        index = np.tile(np.arange(300), num_clips // 300)
        low, high = scores.bootstrap_interval(scores.unweighted_accuracy, TRUTH[index], PREDICTION[index], num=200)
        return high - low

    assert width(2700) < 0.5 * width(300)
    assert width(300) == width(300)


def test_resamples_without_a_class_are_left_out_until_too_many_are():
    truth = np.array([1, 1, 1, 0, 0, 0])
    low, high = scores.bootstrap_interval(scores.weighted_accuracy, truth, truth, num=200)
    assert (low, high) == (1, 1)
    with pytest.raises(ValueError, match="undefined on"):
        scores.bootstrap_interval(scores.weighted_accuracy, np.array([1, 0]), np.array([1, 0]), num=200, seed=1)


def test_several_runs_are_scored_by_their_mean():
    runs = np.stack([PREDICTION, TRUTH])
    low, high = scores.bootstrap_interval(scores.accuracy, TRUTH, runs, num=200)
    assert low < (1 + scores.accuracy(TRUTH, PREDICTION)) / 2 < high


def test_a_paired_difference_is_narrower_than_two_intervals():
    better = np.where(np.arange(300) % 10 == 0, TRUTH, PREDICTION)
    value, low, high = scores.bootstrap_difference(scores.accuracy, TRUTH, better, PREDICTION, num=500)
    assert value == pytest.approx(scores.accuracy(TRUTH, better) - scores.accuracy(TRUTH, PREDICTION))
    assert 0 < low < value < high
    alone = scores.bootstrap_interval(scores.accuracy, TRUTH, PREDICTION, num=500)
    assert high - low < alone[1] - alone[0]


def test_seed_interval_by_hand():
    mean, low, high = scores.mean_interval([0.4, 0.5, 0.6])
    assert mean == pytest.approx(0.5)
    assert high - mean == pytest.approx(4.3027 * 0.1 / np.sqrt(3), rel=1e-4)  # t of 2 degrees of freedom, 97.5 %
    assert mean - low == pytest.approx(high - mean)
    with pytest.raises(ValueError, match="two values or more"):
        scores.mean_interval([0.5])
    with pytest.raises(ValueError, match="not a number"):
        scores.mean_interval([0.5, float("nan")])
