"""Which heads are fitted, with what grid. No torch: a typo in a config should not wait for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from linear_probe.heads.base import Fitted, Problem


def _check_grid(name: str, grid: Sequence[float], *, zero: bool = False) -> None:
    if not grid or min(grid) < 0 or (min(grid) == 0 and not zero):
        raise ValueError(f"{name}: a list of {'numbers from 0' if zero else 'positive numbers'} is wanted: {grid}")
    if len(set(grid)) < len(grid):
        raise ValueError(f"{name}: a number is there twice: {grid}")


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """Logistic regression, solved to the optimum: softmax for classes, a sigmoid each for emotions."""

    c: list[float] = field(default_factory=lambda: [0.001, 0.01, 0.1, 1.0, 10.0])
    """Inverse L2 strengths, as scikit-learn's C."""

    def __post_init__(self) -> None:
        _check_grid("logistic.c", self.c)

    def fit(self, x: "Tensor", y: "Tensor", problems: "Sequence[Problem]", kind: str, num_outputs: int) -> "Fitted":
        """Fit all strengths on each problem's training rows, on the device of x.

        Args:
            x: features [R, D] float32, not standardised.
            y: classes [R] int64, or emotions [R, E] float32 of 0, 1 and NaN.
            problems: rows of x and y.
            kind: one of triptych.evaluation.predictions.KINDS.
            num_outputs: C classes or E emotions.

        Raises:
            UserError: x is a stack, the labels are numbers, or training rows have one class only or hold NaN.
        """
        from linear_probe.heads.logistic import fit

        return fit(self.c, x, y, problems, kind, num_outputs)


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """Ridge regression in closed form: for numbers; for classes and emotions, as +1 and -1, a quick look."""

    alpha: list[float] = field(default_factory=lambda: [1.0, 10.0, 100.0, 1000.0, 10000.0])
    """L2 strengths, as scikit-learn's alpha."""

    def __post_init__(self) -> None:
        _check_grid("ridge.alpha", self.alpha)

    def fit(self, x: "Tensor", y: "Tensor", problems: "Sequence[Problem]", kind: str, num_outputs: int) -> "Fitted":
        """Fit all strengths on each problem's training rows, on the device of x.

        Args:
            x: features [R, D] float32, not standardised.
            y: classes [R] int64, or emotions, sentiment or series [R, E] float32, NaN where not labelled.
            problems: rows of x and y.
            kind: one of triptych.evaluation.predictions.KINDS.
            num_outputs: C classes, or E.

        Raises:
            UserError: x is a stack, or training rows hold NaN or have no labels for an output.
        """
        from linear_probe.heads.ridge import fit

        return fit(self.alpha, x, y, problems, kind, num_outputs)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear layer trained by minibatches, for every pair of lr and weight_decay."""

    lr: list[float] = field(default_factory=lambda: [0.0001, 0.001, 0.01])
    weight_decay: list[float] = field(default_factory=lambda: [0.0, 0.0001, 0.01])
    """Of weights, not of biases or layer weights; as torch's AdamW (decoupled) or SGD (L2) have it."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`sgd` has momentum 0.9, as Franceschini et al. 2022."""
    epochs: int = 100
    batch_size: int = 64
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """`step` multiplies the rate by 0.9 every `step_epochs` epochs (Franceschini et al. 2022: 5 on MOSEI, 100 on
    RAVDESS)."""
    step_epochs: int | None = None
    """Of `step`; the others have none."""
    balanced: bool = False
    """Classes: each counts the same, however many rows it has. Emotions: the rows that have one count together as
    much as those that do not (Khare et al. 2021)."""
    loss: Literal["mse", "l1", "ccc"] | None = None
    """Of numbers; none given means the mean squared error for sentiment, and for series 1 - CCC over all rows of a
    batch end to end. Classes have cross-entropy, emotions binary cross-entropy."""

    def __post_init__(self) -> None:
        _check_grid("lr", self.lr)
        _check_grid("weight_decay", self.weight_decay, zero=True)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: 1 or more is wanted, given: {getattr(self, name)}")
        if (self.step_epochs is not None) != (self.schedule == "step"):
            raise ValueError(f"step_epochs: belongs to step and only to it; the schedule is {self.schedule}")
        if self.step_epochs is not None and self.step_epochs < 1:
            raise ValueError(f"step_epochs: 1 or more is wanted, given: {self.step_epochs}")

    def fit(self, x: "Tensor", y: "Tensor", problems: "Sequence[Problem]", kind: str, num_outputs: int) -> "Fitted":
        """Train the whole grid of every problem at once, on the device of x.

        The order of the rows is a function of the problem's seed and the epoch, the initial weights of its seed: every
        setting sees the same.

        Args:
            x: features [R, D] float32, or [R, L, D] layers whose softmax-weighted sum is learned with each head.
            y: classes [R] int64, or emotions, sentiment or series [R, E] float32, NaN where not labelled.
            problems: rows of x and y.
            kind: one of triptych.evaluation.predictions.KINDS.
            num_outputs: C classes, or E.

        Raises:
            UserError: a loss or balance that the labels cannot have, or training rows hold NaN.
        """
        from linear_probe.heads.trained import fit

        return fit(self, x, y, problems, kind, num_outputs)


@dataclass(frozen=True, kw_only=True)
class Mlp(Linear):
    """fc, ReLU, fc (Franceschini et al. 2022), trained as `Linear`."""

    hidden: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1:
            raise ValueError(f"hidden: 1 or more is wanted, given: {self.hidden}")


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """The heads of a probe; one or several."""

    logistic: Logistic | None = None
    ridge: Ridge | None = None
    linear: Linear | None = None
    mlp: Mlp | None = None

    def __post_init__(self) -> None:
        if not self.given():
            raise ValueError(f"heads: give one or more of {', '.join(part.name for part in fields(self))}")

    def given(self) -> dict[str, Any]:
        """Name -> settings of the heads that are to be fitted."""
        return {part.name: value for part in fields(self) if (value := getattr(self, part.name)) is not None}
