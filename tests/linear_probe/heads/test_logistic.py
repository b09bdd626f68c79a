import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from linear_probe.heads import base
from linear_probe.heads.base import Problem
from linear_probe.heads.config import Logistic
from triptych.config import UserError

GRID = [0.0001, 0.1, 10.0]


def sklearn_heads(x, y, train):
    """scikit-learn on standardised features, to its optimum: (C -> probabilities of all rows, its classes)."""
    scaler = StandardScaler().fit(x[train])
    found = []
    for c in GRID:
        model = LogisticRegression(C=c, tol=1e-9, max_iter=20000)
        model.fit(scaler.transform(x[train]), y[train])
        found.append((model.predict_proba(scaler.transform(x)), model.classes_))
    return found


def same_as_sklearn(x, y, problem, num_classes):
    fitted = Logistic(c=GRID).fit(x, y, [problem], "classes", num_classes)
    ours = fitted.outputs(0, x).softmax(dim=2).numpy()
    assert fitted.converged(0) == (True,) * len(GRID)
    for probabilities, (theirs, classes) in zip(ours, sklearn_heads(x.double().numpy(), y.numpy(), problem.train)):
        assert np.abs(probabilities[:, classes] - theirs).max() < 1e-4
        assert (probabilities.argmax(1) == classes[theirs.argmax(1)]).all()
        assert np.delete(probabilities, classes, axis=1).sum() == 0


@pytest.mark.parametrize("width", [10, 90])
def test_fewer_and_more_columns_than_rows_are_as_scikit_learn(rows, halves, width) -> None:
    x, y = rows(120, width)
    same_as_sklearn(x, y, halves(120), 4)


def test_a_class_without_training_rows_is_never_predicted(rows) -> None:
    x, y = rows(120, 90)
    same_as_sklearn(x, y, Problem(np.flatnonzero(y[:60] != 2), np.arange(60, 120)), 4)


def test_two_classes_are_as_scikit_learn(rows, halves) -> None:
    x, y = rows(80, 50, num_classes=2)
    same_as_sklearn(x, y * 2, halves(80), 3)


def test_features_that_say_nothing_leave_the_shares_of_the_classes(rows, halves) -> None:
    x, y = rows(40, 3)
    fitted = Logistic(c=[1.0]).fit(torch.full_like(x, 3.3), y, [halves(40)], "classes", 4)
    share = torch.bincount(y[:20], minlength=4) / 20
    assert torch.allclose(fitted.outputs(0, x)[0].softmax(1), share.expand(40, 4), atol=1e-5)


def test_emotions_are_as_scikit_learn_where_they_are_labelled(rows, halves) -> None:
    x, classes = rows(120, 90)
    y = torch.stack([(classes == 0).float(), (classes % 2).float(), torch.zeros(120), torch.ones(120)], dim=1)
    y[::3, 0] = torch.nan
    y[::5, 1] = torch.nan
    y[1, 3] = torch.nan
    outputs = Logistic(c=GRID).fit(x, y, [halves(120)], "emotions", 4).outputs(0, x).sigmoid().numpy()
    scaled = StandardScaler().fit(x[:60].double()).transform(x.double())
    for emotion in (0, 1):
        labelled = np.flatnonzero(~y[:60, emotion].isnan())
        for number, c in enumerate(GRID):
            model = LogisticRegression(C=c, tol=1e-9, max_iter=20000).fit(scaled[labelled], y[labelled, emotion])
            assert np.abs(outputs[number, :, emotion] - model.predict_proba(scaled)[:, 1]).max() < 1e-4
    assert (outputs[:, :, 2] == 0).all()
    assert (outputs[:, :, 3] == 1).all()


def test_only_training_rows_are_looked_at(rows, halves) -> None:
    x, y = rows(60, 40)
    spoilt_x, spoilt_y = x.clone(), y.clone()
    spoilt_x[30:], spoilt_y[30:] = torch.nan, -1000
    clean = Logistic(c=GRID).fit(x, y, [halves(60)], "classes", 4)
    spoilt = Logistic(c=GRID).fit(spoilt_x, spoilt_y, [halves(60)], "classes", 4)
    assert torch.equal(clean.outputs(0, x), spoilt.outputs(0, x))


def test_chunks_and_other_problems_change_nothing(rows, halves, monkeypatch) -> None:
    x, y = rows(60, 40)
    alone = Logistic(c=GRID).fit(x, y, [halves(60)], "classes", 4).outputs(0, x)
    monkeypatch.setitem(base.CHUNK_BYTES, "cpu", 1)
    others = [Problem(np.arange(10, 50), np.arange(50, 60)), halves(60), halves(60, seed=3)]
    fitted = Logistic(c=GRID).fit(x, y, others, "classes", 4)
    assert not torch.allclose(fitted.outputs(0, x), alone, atol=1e-3)
    for same in (1, 2):
        assert torch.allclose(fitted.outputs(same, x).softmax(2), alone.softmax(2), atol=1e-5)


def test_what_did_not_converge_says_so(rows, halves, monkeypatch) -> None:
    monkeypatch.setattr("linear_probe.heads.newton.MAX_STEPS", 5)
    x, y = rows(60, 40)
    assert Logistic(c=[1e-8, 100.0]).fit(x, y, [halves(60)], "classes", 4).converged(0) == (True, False)


def test_what_it_cannot_fit_is_refused(rows, halves) -> None:
    x, y = rows(20, 4)
    with pytest.raises(UserError, match=r"these labels are sentiment; use heads\.ridge"):
        Logistic().fit(x, y[:, None].float(), [halves(20)], "sentiment", 1)
    with pytest.raises(UserError, match=r"heads\.logistic: cannot weigh a stack"):
        Logistic().fit(x[:, None], y, [halves(20)], "classes", 4)
    with pytest.raises(UserError, match="one class only"):
        Logistic().fit(x, torch.zeros_like(y), [halves(20)], "classes", 4)
    with pytest.raises(UserError, match="NaN"):
        Logistic().fit(x * torch.nan, y, [halves(20)], "classes", 4)


def test_settings_are_printed_as_a_table_has_them(rows, halves) -> None:
    x, y = rows(20, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Logistic(c=[0.001, 10]).fit(x, y, [halves(20)], "classes", 4).settings == ("C 0.001", "C 10")
