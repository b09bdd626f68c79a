"""What a benchmark fixes, as data: the label, its classes in order, and the scores that its tables print."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace

from triptych import scores
from triptych.config import UserError, nearest
from triptych.protocols.splits import Fold, SplitRule

if typing.TYPE_CHECKING:
    from triptych.batch import Batch

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
    splits: tuple[SplitRule, ...] = ()
    """The divisions that papers use."""
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

    def split(self, name: str) -> SplitRule:
        """The split rule of that name, without the protocol's.

        Raises:
            UserError: it has no such rule.
        """
        rules = {rule.name.rsplit("/", 1)[-1]: rule for rule in self.splits}
        if name not in rules:
            raise UserError(f"split: {self.name} has no {name!r}.{nearest(name, rules)}")
        return rules[name]

    def fold(self, name: str, number: int | None = None) -> Fold:
        """One division of the corpus, whose `assign(records)` divides clips and refuses leaks.

        Args:
            name: of a split rule.
            number: of the fold, from 1; not needed where there is one.

        Raises:
            UserError: no such rule or fold.
        """
        return self.split(name).fold(number)

    def relabel(self, batch: "Batch") -> "Batch":
        """The batch with indices of `classes` in place of `corpus_classes`; a class left out becomes UNLABELLED."""
        if self.classes == self.corpus_classes:
            return batch
        import torch  # not at the top: the writer of shards asks a protocol for its splits, and needs no torch

        from triptych.batch import UNLABELLED

        index = [self.classes.index(name) if name in self.classes else UNLABELLED for name in self.corpus_classes]
        table = torch.tensor([*index, UNLABELLED])  # the last entry is what UNLABELLED (-1) picks
        labels = batch.labels[self.label]
        return replace(batch, labels={**batch.labels, self.label: table.to(labels.device)[labels]})
