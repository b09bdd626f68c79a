"""What a benchmark fixes, as data: the label, its classes in order, and the scores that its tables print."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from triptych import scores
from triptych.batch import UNLABELLED, Batch
from triptych.config import UserError, nearest

METRICS: Mapping[str, scores.Score] = {
    "WA": scores.accuracy,
    "UA": scores.unweighted_accuracy,
    "weighted F1": scores.weighted_f1,
}
"""Name in a table -> function; WA is the overall accuracy, as multi-class emotion tables have it."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A classification benchmark."""

    name: str
    label: str
    """Name of the label in a clip's record."""
    corpus_classes: tuple[str, ...]
    """Every class that a record of the corpus may have; what a loader is given."""
    classes: tuple[str, ...] = ()
    """Those that are told apart; the position is the class index. None named means all of the corpus."""
    metrics: tuple[str, ...] = ("WA", "UA", "weighted F1")
    """Names in METRICS, in the order of the table."""
    select: str = "UA"
    """The metric by which settings are chosen on the validation split."""
    note: str = ""
    """What a reader of the table must know: source, licence, customs of its papers."""

    def __post_init__(self) -> None:
        if not self.classes:
            object.__setattr__(self, "classes", self.corpus_classes)

    def restricted(self, classes: tuple[str, ...]) -> "Protocol":
        """The same protocol with some of its classes, in the order given; other clips are left out and counted.

        Raises:
            UserError: a class that the protocol has not, one given twice, or fewer than two.
        """
        for name in classes:
            if name not in self.corpus_classes:
                raise UserError(f"classes: {self.name} has no {name!r}.{nearest(name, self.corpus_classes)}")
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise UserError(f"classes: two or more different ones are wanted, given: {', '.join(classes)}")
        return replace(self, classes=tuple(classes))

    def relabel(self, batch: Batch) -> Batch:
        """The batch with indices of `classes` in place of `corpus_classes`; a class left out becomes UNLABELLED."""
        if self.classes == self.corpus_classes:
            return batch
        index = [self.classes.index(name) if name in self.classes else UNLABELLED for name in self.corpus_classes]
        table = torch.tensor([*index, UNLABELLED])  # the last entry is what UNLABELLED (-1) picks
        labels = batch.labels[self.label]
        return replace(batch, labels={**batch.labels, self.label: table.to(labels.device)[labels]})
