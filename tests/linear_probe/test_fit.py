import numpy as np
import pytest

from linear_probe.fit import fit
from triptych.config import UserError
from triptych.scores import accuracy, unweighted_accuracy

GRID = [0.001, 0.1, 10.0]


def clips(num, seed, *, separation):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, num)
    centres = np.random.default_rng(99).normal(size=(4, 12)) * separation
    return (centres[labels] + generator.normal(size=(num, 12))).astype(np.float32), labels


def probe(train, valid, **settings):
    return fit(train, valid, num_classes=4, c_grid=GRID, select=unweighted_accuracy, **settings)


def test_separable_clips_are_told_apart():
    fitted = probe(clips(200, 0, separation=3), clips(100, 1, separation=3))
    features, truth = clips(100, 2, separation=3)
    probabilities = fitted.probabilities(features)
    assert accuracy(truth, probabilities.argmax(1)) > 0.95
    assert np.allclose(probabilities.sum(1), 1)


def test_shuffled_labels_score_near_chance():
    generator = np.random.default_rng(5)
    features, labels = clips(400, 0, separation=3)
    fitted = probe((features, generator.permutation(labels)), clips(100, 1, separation=0))
    features, truth = clips(400, 2, separation=3)
    shuffled = generator.permutation(truth)
    assert accuracy(shuffled, fitted.probabilities(features).argmax(1)) == pytest.approx(0.25, abs=0.08)


def test_units_of_a_feature_do_not_matter():
    scale = np.float32([1000] * 6 + [0.001] * 6)
    (train_x, train_y), (valid_x, valid_y) = clips(100, 0, separation=1), clips(50, 1, separation=1)
    plain = probe((train_x, train_y), (valid_x, valid_y))
    scaled = probe((train_x * scale, train_y), (valid_x * scale, valid_y))
    assert np.allclose(plain.probabilities(valid_x), scaled.probabilities(valid_x * scale), atol=1e-3)


def test_a_constant_column_changes_nothing():
    (train_x, train_y), (valid_x, valid_y) = clips(100, 0, separation=1), clips(50, 1, separation=1)
    plain = probe((train_x, train_y), (valid_x, valid_y)).probabilities(valid_x)

    def padded(x):
        return np.hstack([x, np.zeros((len(x), 2), np.float32)])

    assert np.allclose(
        probe((padded(train_x), train_y), (padded(valid_x), valid_y)).probabilities(padded(valid_x)), plain
    )


def test_c_is_the_best_on_valid_and_ties_go_to_the_smaller():
    train, valid = clips(200, 0, separation=3), clips(100, 1, separation=5)
    fitted = probe(train, valid)
    assert fitted.valid_score == 1
    assert fitted.c == min(
        c for c in GRID if fit(train, valid, num_classes=4, c_grid=[c], select=unweighted_accuracy).valid_score == 1
    )


def test_a_class_without_training_clips_gets_probability_zero():
    features, labels = clips(200, 0, separation=3)
    kept = labels != 1
    fitted = probe((features[kept], labels[kept]), clips(50, 1, separation=3))
    assert fitted.probabilities(features)[:, 1].max() == 0


def test_one_class_only_is_refused():
    features, labels = clips(50, 0, separation=1)
    with pytest.raises(UserError, match="one class only"):
        probe((features, np.zeros_like(labels)), (features, labels))
