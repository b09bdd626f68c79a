from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune import losses
from finetune.task import Labels
from triptych.batch import UNLABELLED, Batch
from triptych.evaluation.scores import concordance_correlation
from triptych.protocols import registry

CLASSES = registry.find("synthetic", ("happy", "sad"))
EMOTIONS = registry.find("mosei_emotion")
SENTIMENT = registry.find("mosi")
SERIES = registry.find("avec2017")
NAN = float("nan")


def batch(**labels):
    size = len(next(iter(labels.values())))
    return Batch(keys=("",) * size, epochs=(0,) * size, tracks={}, labels=labels)


def emotions(rows):
    return batch(**{target.label: rows[:, index] for index, target in enumerate(EMOTIONS.targets)})


def part(given, chosen):
    return replace(given, labels={name: values[chosen] for name, values in given.labels.items()})


def loss_of(loss, outputs, given):
    (total,) = loss(outputs, given).losses.values()
    return total


@pytest.mark.parametrize("name", ["cross_entropy", "two_way", "bce", "l1", "mse"])
def test_the_parts_of_a_batch_add_up_and_clips_without_a_label_are_no_items(name):
    torch.manual_seed(0)
    numbers = torch.tensor([1.0, NAN, -2.0, 0.5, NAN, 0.0])
    there = torch.tensor([[1.0, 0, NAN, 0, 0, 1]] * 5 + [[NAN] * 6])
    protocol, given, width = {
        "cross_entropy": (CLASSES, batch(emotion=torch.tensor([0, 1, UNLABELLED, 1, 0, 1])), 2),
        "two_way": (CLASSES, batch(emotion=torch.tensor([0, 1, UNLABELLED, 1, 0, 1])), 2),
        "bce": (EMOTIONS, emotions(there), 6),
        "l1": (SENTIMENT, batch(sentiment=numbers), 1),
        "mse": (SENTIMENT, batch(sentiment=numbers), 1),
    }[name]
    loss, outputs = losses.build(name, protocol, None), torch.randn(6, width, requires_grad=True)
    whole = loss_of(loss, outputs, given)
    parts = [loss_of(loss, outputs[rows], part(given, rows)) for rows in (slice(0, 2), slice(2, 3), slice(3, 6))]
    assert sum(one.count for one in parts) == whole.count < 6 * width
    assert sum(one.sum.item() for one in parts) == pytest.approx(whole.sum.item())
    whole.sum.backward()
    assert torch.isfinite(outputs.grad).all()


def test_every_loss_has_a_zero_with_a_gradient_where_nothing_is_labelled():
    nothing = torch.full((2, 3), NAN)
    series = batch(**{target.label: nothing for target in SERIES.targets})
    for protocol, given, shape in (
        (CLASSES, batch(emotion=torch.tensor([UNLABELLED, UNLABELLED])), (2, 2)),
        (EMOTIONS, emotions(torch.full((2, 6), NAN)), (2, 6)),
        (SENTIMENT, batch(sentiment=torch.tensor([NAN, NAN])), (2, 1)),
        (SERIES, series, (2, 3, 3)),
    ):
        outputs = torch.randn(shape, requires_grad=True)
        total = loss_of(losses.build("", protocol, None), outputs, given)
        total.sum.backward()
        assert (total.sum.item(), total.count) == (0, 0)
        assert (outputs.grad == 0).all()


def test_positives_and_negatives_of_every_emotion_weigh_the_same():
    """Khare et al. 2021; one emotion in four clips, another in two, of one nothing is known of one clip."""
    truth = np.zeros((8, 6))
    truth[:4, 0], truth[:2, 1], truth[0, 2], truth[7, 2] = 1, 1, 1, NAN
    weights = losses.side_weights(truth).double().numpy()
    for emotion in (0, 1, 2):
        known = truth[~np.isnan(truth[:, emotion]), emotion]
        each = np.where(known > 0, weights[1, emotion], weights[0, emotion])
        assert each[known > 0].sum() == pytest.approx(each[known == 0].sum())
        assert each.mean() == pytest.approx(1)


def test_classes_weigh_the_same_where_that_is_asked_for():
    labels = np.array([0, 0, 0, 1, UNLABELLED])
    weights = losses.class_weights(labels, 2)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0])
    outputs, given = torch.zeros(4, 2), batch(emotion=torch.tensor([0, 0, 0, 1]))
    weighted = loss_of(losses.build("", CLASSES, labels), outputs, given)
    assert float(weighted.sum) == pytest.approx(4 * np.log(2), rel=1e-5)  # the mean weight is 1


def test_the_loss_of_series_is_one_minus_the_score_of_all_steps_end_to_end():
    torch.manual_seed(0)
    truth, outputs = torch.randn(3, 7, 3), torch.randn(3, 7, 3)
    truth[1, 4:] = NAN
    truth[2, :, 2] = NAN
    given = batch(**{target.label: truth[..., index] for index, target in enumerate(SERIES.targets)})
    total = loss_of(losses.build("", SERIES, None), outputs, given)
    wanted = 0.0
    for index in range(3):
        known = ~truth[..., index].isnan()
        pair = [truth[..., index][known].double().numpy()], [outputs[..., index][known].double().numpy()]
        wanted += (1 - concordance_correlation(*pair)) * int(known.sum())
    assert total.sum.item() == pytest.approx(wanted, rel=1e-5)
    assert total.count == int((~truth.isnan()).sum())


def test_two_way_shares_are_each_decisions_probability_over_their_sum():
    logits = torch.tensor([[2.0, -1.0]])
    shares = losses.build("two_way", CLASSES, None).said(logits).softmax(dim=1)
    each = logits.sigmoid()
    assert shares[0].tolist() == pytest.approx((each / each.sum())[0].tolist())


def test_series_of_other_lengths_get_the_same_number_of_steps():
    lengths = {target.label: 2 + index for index, target in enumerate(SERIES.targets)}
    given = batch(**{label: torch.zeros(2, length) for label, length in lengths.items()})
    found = Labels(SERIES)(given).labels
    assert {values.shape for values in found.values()} == {(2, 4)}
    assert {label: int((~values[0].isnan()).sum()) for label, values in found.items()} == lengths
