"""From the ranges of a search to the config of a trial."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import BaseTrial

from finetune.config import FinetuneConfig
from finetune.search.config import Range, SearchConfig
from triptych import config as configs
from triptych.config import UserError, nearest

COMPARED_BY = (
    *("protocol", "classes", "split", "listed", "init", "seeds", "best_of", "missing", "label_shares"),
    *("num_resamples", "trainer.max_steps", "trainer.evaluate_every"),
)
"""What every trial must have alike, or the best would be the luckiest or the longest."""


def open_base(config: SearchConfig) -> FinetuneConfig:
    """The fine-tuning that is searched around, checked against the space.

    Raises:
        UserError: no such config; a field that it has not, that may not be searched, or of another type; a value that
            it does not take; evaluations too seldom for `min_steps`.
    """
    given = [override(path, value) for path, value in configs.flatten(config.overrides).items()]
    given.append(override("out", str(Path(config.out) / "best")))
    base = configs.load(FinetuneConfig, configs.find(config.finetune, "finetune"), given)
    known = dict(branches(configs.to_dict(base)))
    for path, values in config.space.items():
        _check(path, values, known)
        for value in values.choices or [values.low, values.high]:
            try:
                changed(base, {path: int(value) if _is_whole(known[path]) and not values.choices else value})
            except UserError as error:
                raise UserError(f"space.{path}: {value!r} is nothing for it: {error}") from None
    trainer = base.trainer
    if not trainer.evaluate_every <= config.min_steps <= trainer.max_steps:
        raise UserError(
            f"min_steps: {config.min_steps} must lie between the base's trainer.evaluate_every "
            f"({trainer.evaluate_every}), since trials are judged where they are evaluated, and trainer.max_steps "
            f"({trainer.max_steps})"
        )
    return base


def _check(path: str, values: Range, known: Mapping[str, Any]) -> None:
    """Whether the base has the field, and may be searched over these values."""
    if path not in known:
        hint = nearest(path, known)
        raise UserError(f"space: the base has no {path!r}; what it has not by default, give it in overrides.{hint}")
    fixed = [name for name in ("out", *COMPARED_BY) if name == path or name.startswith(f"{path}.")]
    if fixed:
        raise UserError(f"space.{path}: {fixed[0]} must be the same for all trials, which are compared by it")
    if values.choices:
        return
    if isinstance(known[path], bool) or not isinstance(known[path], int | float):
        raise UserError(f"space.{path}: the base has {known[path]!r}, no number: give choices in place of low and high")
    ends = [number for number in (values.low, values.high, values.step) if number is not None]
    if _is_whole(known[path]) and any(number != int(number) for number in ends):
        raise UserError(f"space.{path}: takes whole numbers; given: {', '.join(f'{number:g}' for number in ends)}")


def suggest(trial: BaseTrial, space: Mapping[str, Range], base: FinetuneConfig) -> dict[str, Any]:
    """Values of a trial: path -> value. What it was given before, as a finished one was, is given again."""
    known = dict(branches(configs.to_dict(base)))
    values: dict[str, Any] = {}
    for path, given in space.items():
        if given.choices:  # as JSON, so that lists and whole heads can be chosen too
            values[path] = json.loads(trial.suggest_categorical(path, [json.dumps(one) for one in given.choices]))
            continue
        assert given.low is not None  # see Range
        assert given.high is not None
        if _is_whole(known[path]):
            low, high, step = int(given.low), int(given.high), int(given.step or 1)
            values[path] = trial.suggest_int(path, low, high, step=step, log=given.log)
        else:
            values[path] = trial.suggest_float(path, given.low, given.high, step=given.step, log=given.log)
    return values


def changed(base: FinetuneConfig, values: Mapping[str, Any]) -> FinetuneConfig:
    """The base with other values.

    Args:
        base: of `open_base`.
        values: path -> value.

    Raises:
        UserError: a component refuses them, also in this combination.
    """
    overrides = [override(path, value) for path, value in values.items()]
    return configs.load(FinetuneConfig, configs.to_dict(base), overrides)


def override(path: str, value: Any) -> str:
    """As `triptych.config.load` reads it; JSON is YAML."""
    return f"{path}={json.dumps(value)}"


def branches(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything in a config, mappings included."""
    for name, inner in value.items():
        path = f"{prefix}{name}"
        yield path, inner
        if isinstance(inner, Mapping):
            yield from branches(inner, f"{path}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
