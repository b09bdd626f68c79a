import numpy as np
import pytest
import scipy.stats

from triptych.evaluation import scores

RNG = np.random.default_rng(11)
TRUTH = RNG.normal(size=120)
CLOSE, FAR = TRUTH + 0.3 * RNG.normal(size=120), TRUTH + RNG.normal(size=120)


def average_w_acc(truth, prediction):
    return float(np.mean([scores.weighted_accuracy(truth[:, e], prediction[:, e]) for e in range(truth.shape[1])]))


def test_the_interval_of_a_mean_error_is_the_normal_one():
    low, high = scores.bootstrap_interval(scores.mean_absolute_error, TRUTH, FAR, num=2000)
    error = np.abs(TRUTH - FAR)
    half = 1.96 * error.std() / np.sqrt(120)
    assert (low, high) == pytest.approx((error.mean() - half, error.mean() + half), abs=0.02)


def test_clips_are_drawn_with_all_their_labels():
    truth = (RNG.random((60, 1)) < 0.5).astype(int).repeat(2, axis=1)
    prediction = np.where(RNG.random((60, 1)) < 0.7, truth, 1 - truth)
    both = scores.bootstrap_interval(average_w_acc, truth, prediction, num=200)
    one = scores.bootstrap_interval(scores.weighted_accuracy, truth[:, 0], prediction[:, 0], num=200)
    assert both == pytest.approx(one)  # the second label is a copy: it adds no certainty
    runs = scores.bootstrap_interval(average_w_acc, truth, np.stack([prediction, prediction]), num=200)
    assert runs == pytest.approx(both)


@pytest.mark.parametrize("lengths", [[40] * 6, [20, 30, 40, 50, 60, 40]])
def test_recordings_are_drawn_whole(lengths):
    """Recordings whose steps repeat one value: as certain as six numbers, not as 240."""
    truth = [np.full(length, value) for length, value in zip(lengths, (-2.0, -1, 0, 0.5, 1, 2))]
    prediction = [recording + offset for recording, offset in zip(truth, (1, -1, 0.5, -0.5, 1, -1))]
    low, high = scores.bootstrap_interval(scores.concordance_correlation, truth, prediction, num=300)
    steps = np.concatenate(truth), np.concatenate(prediction)
    low_steps, high_steps = scores.bootstrap_interval(scores.concordance_correlation, *steps, num=300)
    assert high - low > 2 * (high_steps - low_steps)
    runs = scores.bootstrap_interval(scores.concordance_correlation, truth, [prediction, prediction], num=300)
    assert runs == pytest.approx((low, high))


def test_one_recording_has_no_interval():
    with pytest.raises(ValueError, match="one clip or recording has no interval"):
        scores.bootstrap_interval(scores.concordance_correlation, [TRUTH], [FAR])


def test_nan_is_refused_before_any_resampling():
    spoilt = TRUTH.copy()
    spoilt[7] = np.nan
    with pytest.raises(ValueError, match="truth: finite numbers"):
        scores.bootstrap_interval(scores.mean_absolute_error, spoilt, FAR)


def test_a_paired_bootstrap_tells_a_better_system_from_an_equal_one():
    better = scores.paired_bootstrap(scores.mean_absolute_error, TRUTH, CLOSE, FAR, num=400)
    assert better.low < better.value < better.high < 0
    assert better.p == pytest.approx(2 / 401)
    same = scores.paired_bootstrap(scores.mean_absolute_error, TRUTH, CLOSE, CLOSE, num=400)
    assert (same.value, same.p) == (0, 1)
    assert scores.bootstrap_difference(scores.mean_absolute_error, TRUTH, CLOSE, FAR, num=400) == pytest.approx(
        (better.value, better.low, better.high)
    )


def test_the_p_value_of_two_equally_good_systems_is_seldom_small():
    small = 0
    for trial in range(60):
        generator = np.random.default_rng(trial)
        first, second = generator.normal(size=(2, 50))
        found = scores.paired_bootstrap(scores.mean_absolute_error, np.zeros(50), first, second, num=100, seed=trial)
        small += found.p < 0.1
    assert small <= 13  # 6 expected


def test_wilcoxon_agrees_with_scipy_and_with_the_table():
    first, second = CLOSE[:12], FAR[:12]
    assert scores.wilcoxon_signed_rank(first, second) == scipy.stats.wilcoxon(first, second).pvalue
    assert scores.wilcoxon_signed_rank([1, 2, 3, 4, 5], [0, 0, 0, 0, 0]) == pytest.approx(2 / 2**5)
    assert scores.wilcoxon_signed_rank([1, 2, 3, 4, 5, 6], [0] * 6) == pytest.approx(2 / 2**6)
    assert scores.wilcoxon_signed_rank([1, 2], [1, 2]) == 1
    with pytest.raises(ValueError, match="same length"):
        scores.wilcoxon_signed_rank([1, 2], [1])
    with pytest.raises(ValueError, match="not a finite number"):
        scores.wilcoxon_signed_rank([1, np.nan], [1, 2])
