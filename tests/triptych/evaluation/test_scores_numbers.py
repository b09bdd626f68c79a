import csv

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

from triptych.evaluation import scores

KEYS = {
    *("acc7", "acc7_half_away", "acc5", "acc2_nonzero", "acc2_has0", "acc2_positive"),
    *("f1_nonzero", "f1_has0", "f1_positive", "mae", "corr"),
}
RNG = np.random.default_rng(5)
TRUTH = RNG.integers(-9, 10, 400) / 3
PREDICTION = TRUTH + RNG.normal(size=400)


def counted(bins):
    values, counts = np.unique(bins, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


def test_sentiment_by_hand():
    truth = [-3, -1, -0.4, 0, 0, 0.5, 1.5, 2.4]
    prediction = [-4, -0.6, 0.2, 0, -0.2, 1, 2.5, 1.2]
    found = scores.sentiment_scores(truth, prediction)
    assert set(found) == KEYS
    # half to even: truth -3 -1 0 0 0 0 2 2, prediction -3 -1 0 0 0 1 2 1
    assert found["acc7"] == 6 / 8
    # halves away: truth -3 -1 0 0 0 1 2 2, prediction -3 -1 0 0 0 1 3 1
    assert found["acc7_half_away"] == 6 / 8
    # +-2: truth -2 -1 0 0 0 0 2 2, prediction -2 -1 0 0 0 1 2 1
    assert found["acc5"] == 6 / 8
    # without the zeros: truth - - - + + +, prediction - - + + + +
    assert found["acc2_nonzero"] == 5 / 6
    assert found["f1_nonzero"] == pytest.approx((4 / 5 + 6 / 7) / 2)
    # >= 0: truth - - - + + + + +, prediction - - + + - + + +
    assert found["acc2_has0"] == 6 / 8
    assert found["f1_has0"] == pytest.approx((3 * 4 / 6 + 5 * 8 / 10) / 8)
    # > 0: truth - - - - - + + +, prediction - - + - - + + +
    assert found["acc2_positive"] == 7 / 8
    assert found["f1_positive"] == pytest.approx((5 * 8 / 9 + 3 * 6 / 7) / 8)
    assert found["mae"] == pytest.approx((1 + 0.4 + 0.6 + 0 + 0.2 + 0.5 + 1 + 1.2) / 8)


def test_sentiment_agrees_with_scikit_learn_and_scipy():
    found = scores.sentiment_scores(TRUTH, PREDICTION)
    some = TRUTH != 0
    for name, truth, prediction in (
        ("nonzero", TRUTH[some] > 0, PREDICTION[some] > 0),
        ("has0", TRUTH >= 0, PREDICTION >= 0),
        ("positive", TRUTH > 0, PREDICTION > 0),
    ):
        assert found[f"acc2_{name}"] == pytest.approx(metrics.accuracy_score(truth, prediction))
        assert found[f"f1_{name}"] == pytest.approx(metrics.f1_score(truth, prediction, average="weighted"))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(TRUTH, PREDICTION))
    assert found["corr"] == pytest.approx(scipy.stats.pearsonr(TRUTH, PREDICTION).statistic)


def test_where_halves_and_thirds_go():
    values = [-7, -2.5, -1.5, -0.5, -0.4, 0, 0.3, 0.5, 0.49999999999999994, 1.5, 2.5, 9]
    assert scores.sentiment_bins(values).tolist() == [-3, -2, -2, 0, 0, 0, 0, 0, 0, 2, 2, 3]
    assert scores.sentiment_bins(values, 3, "half_away").tolist() == [-3, -3, -2, -1, 0, 0, 0, 1, 0, 2, 3, 3]
    assert scores.sentiment_bins(values, 3, "away").tolist() == [-3, -3, -2, -1, -1, 0, 1, 1, 1, 2, 3, 3]
    assert scores.sentiment_bins(values, 2).tolist() == [-2, -2, -2, 0, 0, 0, 0, 0, 0, 2, 2, 2]


def test_the_variants_of_acc7_differ_on_a_half():
    found = scores.sentiment_scores([1, 1], [0.5, 1])
    assert (found["acc7"], found["acc7_half_away"]) == (0.5, 1)


def test_a_constant_prediction_is_scored_without_nan():
    found = scores.sentiment_scores(TRUTH, np.full(400, 0.1))
    assert found["corr"] == 0
    assert np.isfinite(list(found.values())).all()
    assert scores.sentiment_scores([1.0], [1.0])["corr"] == 0


def test_a_truth_of_zeros_only_has_no_nonzero_score():
    with pytest.raises(ValueError, match="undefined without the clips whose truth is 0"):
        scores.sentiment_scores([0, 0], [1, -1])


def test_concordance_by_hand():
    # means 2 and 3, variances 2/3 and 2/3, covariance 2/3
    assert scores.concordance_correlation([1, 2, 3], [2, 3, 4]) == pytest.approx((4 / 3) / (4 / 3 + 1))
    # means 1 and 2, variances 1 and 4, covariance -2
    assert scores.concordance_correlation([0, 2], [4, 0]) == pytest.approx(-4 / (1 + 4 + 1))


def test_concordance_of_recordings_is_that_of_their_steps_end_to_end():
    cuts = [30, 31, 250]
    pieces = np.split(TRUTH, cuts), np.split(PREDICTION, cuts)
    whole = scores.concordance_correlation(TRUTH, PREDICTION)
    assert scores.concordance_correlation(*pieces) == whole
    assert scores.concordance_correlation(TRUTH.reshape(4, 100), PREDICTION.reshape(4, 100)) == whole
    apart = np.mean([scores.concordance_correlation(t, p) for t, p in zip(*pieces)])
    assert abs(apart - whole) > 0.01


def test_concordance_of_constants():
    assert scores.concordance_correlation([1, 2, 3], [2, 2, 2]) == 0
    assert scores.concordance_correlation([2, 2, 2], [1, 2, 3]) == 0
    assert scores.concordance_correlation([0.1] * 7, [0.3] * 7) == 0
    assert scores.concordance_correlation([0.1] * 7, [0.1] * 7) == 1


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 1], [0, np.nan], "prediction: finite numbers"),
        ([0, np.inf], [0, 1], "truth: finite numbers"),
        ([0, 1], ["0", "1"], "prediction: finite numbers"),
        ([0, 1], [0, 1, 1], "shapes"),
        ([], [], "nothing to score"),
    ],
)
@pytest.mark.parametrize(
    "score",
    [scores.mean_absolute_error, scores.correlation, scores.concordance_correlation, scores.sentiment_scores],
)
def test_what_is_no_finite_number_is_refused(score, truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        score(truth, prediction)


def test_recordings_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="recordings of the same lengths"):
        scores.concordance_correlation([[1, 2], [1, 2, 3]], [[1, 2, 3], [1, 2]])


def mosei(real_data, split):
    with (real_data / "mosei" / f"sse_ft_label_file_{split}.csv").open(newline="") as file:
        return np.array([float(row["sentiment_score"]) for row in csv.DictReader(file)])


@pytest.mark.real
def test_mosei_histograms(real_data):
    truth = mosei(real_data, "test")
    assert (len(truth), int((truth == 0).sum())) == (4662, 1025)
    assert counted(scores.sentiment_bins(truth)) == {-3: 70, -2: 399, -1: 554, 0: 1927, 1: 1230, 2: 441, 3: 41}
    away = {-3: 156, -2: 489, -1: 705, 0: 1025, 1: 1512, 2: 665, 3: 110}
    assert counted(scores.sentiment_bins(truth, 3, "away")) == away
    half_away = {-3: 70, -2: 399, -1: 556, 0: 1924, 1: 1231, 2: 441, 3: 41}
    assert counted(scores.sentiment_bins(truth, 3, "half_away")) == half_away
    zeros = {split: int((mosei(real_data, split) == 0).sum()) for split in ("train", "valid")}
    assert zeros == {"train": 3538, "valid": 433}


@pytest.mark.real
def test_what_constants_score_on_mosei(real_data):
    truth = mosei(real_data, "test")
    zero = scores.sentiment_scores(truth, np.zeros(4662))  # 0 is the median and the majority of seven, too
    assert np.median(truth) == 0
    assert zero["acc7"] == pytest.approx(1927 / 4662)
    assert zero["acc2_has0"] == pytest.approx((1025 + 2287) / 4662)
    assert zero["acc2_nonzero"] == pytest.approx(1350 / (4662 - 1025))
    assert zero["mae"] == pytest.approx(0.8387, abs=5e-5)
    assert zero["corr"] == 0
