"""What a benchmark fixes, as data: labels and what counts as which class, splits, the scores that its tables print, and
the rows that were published.

Legend: B clips.
"""

import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from triptych.config import UserError, nearest
from triptych.labels import UNLABELLED, LabelSpec
from triptych.protocols.splits import Fold, SplitRule

if typing.TYPE_CHECKING:
    from triptych.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to predict, and what a clip's record says of it."""

    label: str
    """Its name in a record."""
    form: LabelSpec
    """What a loader is asked for: every class that the corpus may say, a number, or a series."""
    classes: tuple[str, ...] = ()
    """Of a class: those that are told apart; the position is the class index. None named means all of `form`."""
    counted_as: Mapping[str, str] = field(default_factory=dict)
    """Class of the corpus -> the one of `classes` that it counts as, as excited -> happy."""
    positive_above: float | None = None
    """Of a number that is a yes or no: it is yes above this."""

    def __post_init__(self) -> None:
        if isinstance(self.form, tuple) and not self.classes:
            object.__setattr__(self, "classes", self.form)

    def class_of(self, said: str) -> str | None:
        """The class of a record that says this; None where the protocol leaves it out."""
        name = self.counted_as.get(said, said)
        return name if name in self.classes else None


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of somebody's table."""

    system: str
    scores: Mapping[str, float]
    """Metric, or target and metric ("happy w-ACC"), as printed: percent, but MAE, correlations and CCC."""
    split: str
    """What it was scored on: one of the protocol's rules, or in words where it is none of them."""
    source: str
    grade: str
    """A read in the primary source, B quoted by a third party, C an abstract or implausible: no target."""
    seed: bool = False
    """One of the papers that the project starts from."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A benchmark."""

    name: str
    kind: str = "classes"
    """Of predictions, as `triptych.evaluation.predictions` has it: classes (one choice), emotions (several yes or no),
    sentiment (a number), series (numbers over time)."""
    targets: tuple[Target, ...]
    """One where the kind is classes or sentiment."""
    metrics: tuple[str, ...] = ("WA", "UA", "weighted F1")
    """Names of scores in the order of the table; of `triptych.evaluation.conventions` for this kind."""
    select: str = "UA"
    """The metric by which settings are chosen on the validation split."""
    select_lowest: bool = False
    """The lowest value of `select` is the best, as of an error."""
    threshold: str = ""
    """Where decision thresholds come from."""
    splits: tuple[SplitRule, ...] = ()
    """The divisions that papers use."""
    published: tuple[Published, ...] = ()
    note: str = ""
    """What a reader of the table must know: source, licence, customs of its papers."""

    @property
    def labels(self) -> dict[str, LabelSpec]:
        """What a loader is asked for."""
        return {target.label: target.form for target in self.targets}

    @property
    def label(self) -> str:
        """Of a protocol of one choice: its label's name in a clip's record."""
        return self._choice.label

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a protocol of one choice: the classes that are told apart."""
        return self._choice.classes

    @property
    def _choice(self) -> Target:
        if self.kind != "classes":
            labels = ", ".join(target.label for target in self.targets)
            raise UserError(f"protocol {self.name}: predicts {self.kind} ({labels}); one of a choice of classes only")
        return self.targets[0]

    def restricted(self, classes: tuple[str, ...]) -> "Protocol":
        """The same protocol with some of its classes, in the order given; other clips are left out and counted.

        Without the published rows where classes are missing: those tell all of them apart.

        Raises:
            UserError: a class that the protocol has not, one given twice, or fewer than two.
        """
        target = self._choice
        for name in classes:
            if name not in target.classes:
                raise UserError(f"classes: {self.name} has no {name!r}.{nearest(name, target.classes)}")
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise UserError(f"classes: two or more different ones are wanted, given: {', '.join(classes)}")
        published = self.published if set(classes) == set(target.classes) else ()
        return replace(self, targets=(replace(target, classes=tuple(classes)),), published=published)

    def split(self, name: str) -> SplitRule:
        """The split rule of that name, without the protocol's.

        Raises:
            UserError: it has no such rule.
        """
        rules = {rule.name.rsplit("/", 1)[-1]: rule for rule in self.splits}
        if name not in rules:
            raise UserError(f"split: {self.name} has no {name!r}.{nearest(name, rules)}")
        return rules[name]

    def fold(self, name: str, number: int | None = None, listed: Collection[str] | None = None) -> Fold:
        """One division of the corpus, whose `assign(records)` divides clips and refuses leaks.

        Args:
            name: of a split rule.
            number: of the fold, from 1; not needed where there is one.
            listed: keys, for a rule that takes its validation clips from a list of the user.

        Raises:
            UserError: no such rule or fold, or a list that is missing, wrong or not wanted.
        """
        return self.split(name).fold(number, listed)

    def relabel(self, batch: "Batch") -> "Batch":
        """The batch with the protocol's own labels.

        A class becomes an index of `classes`, UNLABELLED where it is left out; a number with `positive_above` becomes
        1.0 or 0.0, and NaN stays NaN ([B] each). Other labels stay as they are.
        """
        import torch  # not at the top: the writer of shards asks a protocol for its splits, and needs no torch

        labels = dict(batch.labels)
        for target in self.targets:
            values = labels[target.label]
            if target.positive_above is not None:
                labels[target.label] = torch.where(
                    values.isnan(), values, (values > target.positive_above).to(values.dtype)
                )
            elif isinstance(target.form, tuple) and (target.counted_as or target.classes != target.form):
                names = [target.class_of(said) for said in target.form]
                index = [UNLABELLED if name is None else target.classes.index(name) for name in names]
                table = torch.tensor([*index, UNLABELLED])  # the last entry is what UNLABELLED (-1) picks
                labels[target.label] = table.to(values.device)[values]
        return replace(batch, labels=labels)
