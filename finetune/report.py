"""What a fine-tuning writes: the report of triptych.evaluation.results, with sections of its own below the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune import flips
from finetune.config import Init
from finetune.evaluation import Scored, answers_of, shares_of
from finetune.outcome import ALL, Outcome, Outcomes, Run
from finetune.plan import Plan, transcript_condition
from finetune.trained_weights import EncoderTraining
from finetune.transcript_differences import TranscriptDifferences
from shards.divisions.divisions import common_facts
from shards.reading.other_words import Difference
from triptych.evaluation import figures, results
from triptych.evaluation.baselines import baselines
from triptych.evaluation.conventions import by_name
from triptych.evaluation.parts import at_share
from triptych.evaluation.results import Evaluation, Section, Split, System
from triptych.evaluation.significance import Units
from triptych.evaluation.tables import number

CURVE = "curve.png"


def write(plan: Plan, outcomes: Outcomes, out: Path) -> dict[str, Any]:
    """Read the labels of the held-out clips, after every choice, and write everything into a folder.

    Returns:
        The content of results.json.

    Raises:
        UserError: no held-out clip has a label.
    """
    author = Author(plan, outcomes)
    whole = author.table()
    (out / "figures").mkdir(exist_ok=True)
    sections = {}
    has_flips = plan.data.protocol.kind in flips.KINDS
    if (missing := author.missing(whole)) is not None:
        note = ""
        if has_flips:
            num_flips = author.write_flips(out / "flips.csv")
            note = f"flips.csv lists the {num_flips:,} predictions that change where modalities are removed."
        sections["missing"] = _section("Modalities removed at test time", missing, out, "missing", note)
    if (other := author.transcripts(whole)) is not None:
        differences = TranscriptDifferences(
            plan.data.shard_set, plan.transcripts, plan.vocabulary, author.test.split.keys
        )
        note = differences.note
        if has_flips:
            num_flips = author.write_word_flips(out / "flips_transcripts.csv", differences.differences)
            note += f" flips_transcripts.csv lists the {num_flips:,} predictions that change with the words."
        section = _section("Other transcripts at test time", other, out, "transcripts", note)
        sections["transcripts"] = replace(section, numbers={**section.numbers, "words": differences.numbers})
    if (curve := author.curve(whole)) is not None:
        sections["curve"] = _section("Shares of the training labels", curve, out, "curve", author.small_steps())
        author.draw_curve(sections["curve"].numbers, out / "figures" / CURVE)
    return results.write(whole, out, sections)


def _section(title: str, told: Evaluation, out: Path, name: str, note: str) -> Section:
    """A further table, whose predictions are written."""
    results.write_predictions(told, out / f"predictions_{name}.csv")
    return Section(title=title, numbers=results.compute(told), note=note)


class Author:
    """Outcomes as rows of a report."""

    def __init__(self, plan: Plan, outcomes: Outcomes) -> None:
        """Open the labels of the held-out clips."""
        self.plan, self.outcomes, self.config, self.protocol = plan, outcomes, plan.config, plan.data.protocol
        self.inputs = "+".join(plan.inputs)
        divided = plan.data.divisions
        self._places = [(number, key) for number, one in enumerate(divided) for key in one.keys["test"]]
        folds = [divided[number].name for number, _ in self._places] if len(divided) > 1 else ()
        self.test = Scored.of(plan.data.truth, [key for _, key in self._places], folds)
        kept, _ = plan.data.truth.scored([key for _, key in self._places])
        self._places = [place for place, there in zip(self._places, kept, strict=True) if there]

    def table(self) -> Evaluation:
        """The table of all rows."""
        config, plan = self.config, self.plan
        train = {
            one.name if self.test.split.folds else "": Scored.of(plan.data.truth, one.keys["train"]).split.truth
            for one in plan.data.divisions
        }
        rows = [system for init in self.config.rows for system in self._systems(init)]
        titles = [system.title for system in rows]
        main = self._system(config.last_row, 1.0).title
        return Evaluation(
            title=f"Fine-tuning: {', '.join(target.label for target in self.protocol.targets)}, {self.protocol.name}",
            protocol=self.protocol,
            splits=self._splits(),
            split_rule=plan.data.shard_set.manifest.split,
            rule=plan.data.rule,
            systems=[*baselines(self.protocol, train, self.test.split), *rows],
            compared=[(main, title) for title in titles if title != main and "best of" not in title],
            drawn=main,
            num_resamples=config.num_resamples,
            facts=self._facts(),
            pictures={CURVE: f"{self.protocol.select} over the share of the training labels"}
            if config.label_shares
            else {},
        )

    def missing(self, whole: Evaluation) -> Evaluation | None:
        """The last row's runs, as they were trained with all modalities, shown fewer."""
        init = self.config.last_row
        main = self._system(init, 1.0)
        systems = [
            replace(main, name=f"{main.name} on {main.inputs}", inputs=shown, **self._answers(init, 1.0, shown))
            for shown in self.plan.modalities_removed
        ]
        if not systems:
            return None
        return replace(
            whole, systems=[main, *systems], compared=[(one.title, main.title) for one in systems], drawn=main.title
        )

    def curve(self, whole: Evaluation) -> Evaluation | None:
        """Every row at every share of the labels."""
        systems = [
            replace(system, name=at_share(system.name, share))
            for share in sorted(set(self.config.label_shares))
            for system in (self._system(init, share) for init in self.config.rows)
        ]
        return replace(whole, systems=systems, compared=()) if systems else None

    def small_steps(self) -> str:
        """Which shares are smaller than a step; empty where none is."""
        batch = self.config.global_batch
        smallest = {share: min(part.global_batch for part in parts) for share, parts in self.plan.parts.items()}
        told = [f"{clips} at {100 * share:g} %" for share, clips in smallest.items() if clips < batch]
        return f"A step is {batch} clips, or all there are: {', '.join(told)}." if told else ""

    def draw_curve(self, numbers: Mapping[str, Any], path: Path) -> None:
        """The selecting metric over the share of the labels."""
        metric = numbers["protocol"]["select"]
        entries = {row["system"]: row["metrics"][metric] for row in numbers["systems"]}
        lines = {
            title: {share: entries[at_share(title, share)] for share in set(self.config.label_shares)}
            for title in map(self.config.title, self.config.rows)
        }
        figures.learning_curve(lines, metric, metric in numbers["protocol"]["percent"], path)

    def write_flips(self, path: Path) -> int:
        """Every prediction that changes where modalities are removed; returns their number."""
        init = self.config.last_row
        full, rows = self._answers(init, 1.0)["predictions"], []
        for left in self.plan.modalities_removed:
            removed = "+".join(name for name in self.plan.inputs if name not in left.split("+"))
            fewer = self._answers(init, 1.0, left)["predictions"]
            for run, key, *told in flips.flips(self.protocol, self.test.split, full, fewer):
                rows.append([key, self.config.seeds[run], removed, left, *told])
        flips.write(path, ["key", "seed", "removed", "left", "target", "truth", "with all", "without"], rows)
        return len(rows)

    def transcripts(self, whole: Evaluation) -> Evaluation | None:
        """Every row's runs, as they were trained, with the words of other transcripts."""
        systems, compared = [], []
        for init in self.config.rows:
            own = self._system(init, 1.0)
            systems.append(own)
            for name in self.plan.transcripts:
                answers = self._answers(init, 1.0, transcript_condition(name))
                systems.append(replace(own, name=f"{own.name}, {name} words", **answers))
                compared.append((systems[-1].title, own.title))
        if not compared:
            return None
        return replace(whole, systems=systems, compared=compared, drawn=systems[0].title)

    def write_word_flips(self, path: Path, differences: Mapping[str, Difference]) -> int:
        """Every prediction that changes with the words of other transcripts; returns their number."""
        rows = []
        for init in self.config.rows:
            own = self._answers(init, 1.0)["predictions"]
            for name, difference in differences.items():
                other = self._answers(init, 1.0, transcript_condition(name))["predictions"]
                for run, key, *told in flips.flips(self.protocol, self.test.split, own, other):
                    title = self.config.title(init)
                    rows.append([key, self.config.seeds[run], title, name, difference.errors[key], *told])
        head = ["key", "seed", "system", "transcript", "word errors", "target", "truth", "own words", "other words"]
        flips.write(path, head, rows)
        return len(rows)

    def _of(self, init: Init, share: float) -> list[Sequence[Outcome]]:
        """[seeds][divisions]"""
        return [self.outcomes[Run(init, share, seed)] for seed in self.config.seeds]

    def _systems(self, init: Init) -> list[System]:
        """A row's mean over seeds and, where it is wanted, what valid chose of every so many."""
        row = self._system(init, 1.0)
        if not self.config.best_of:
            return [row]
        size, runs, sign = self.config.best_of, self._of(init, 1.0), -1 if self.protocol.select_lowest else 1
        chosen = [  # zip: the outcomes of several seeds on the same division
            [
                max(seeds, key=lambda one: sign * one.best.score)
                for seeds in zip(*runs[start : start + size], strict=True)
            ]
            for start in range(0, len(runs), size)
        ]
        best = replace(row, name=f"{row.name}, best of {size}", note=self._note(chosen), **self._answers_of(chosen))
        return [row, best]

    def _system(self, init: Init, share: float) -> System:
        note = self._note(self._of(init, share))
        return System(name=self.config.title(init), inputs=self.inputs, note=note, **self._answers(init, share))

    def _answers(self, init: Init, share: float, condition: str = ALL) -> dict[str, Any]:
        return self._answers_of(self._of(init, share), condition)

    def _answers_of(self, runs: Sequence[Sequence[Outcome]], condition: str = ALL) -> dict[str, Any]:
        """`predictions` and `probabilities` of a System."""
        each: list[Units] = []
        shares: list[NDArray[np.float64]] = []
        for run in runs:
            outputs = [run[number].said[condition][key] for number, key in self._places]
            each.append(answers_of(self.protocol, self.test, outputs))
            if (own := shares_of(self.protocol, outputs)) is not None:
                shares.append(own)
        predictions = np.empty((len(each), len(self._places)), dtype=object)
        if self.protocol.kind == "series":
            for index, units in enumerate(each):
                predictions[index] = units
        else:
            predictions = np.stack(each)
        return {"predictions": predictions, "probabilities": np.stack(shares) if shares else None}

    def _note(self, runs: Sequence[Sequence[Outcome]]) -> str:
        """Steps that were chosen, and the score on valid."""
        steps = [one.best.step for run in runs for one in run]
        told = ", ".join(map(str, steps)) if len(steps) <= 5 else f"{min(steps)} to {max(steps)}"
        score = float(np.mean([one.best.score for run in runs for one in run]))
        percent = by_name(self.protocol.kind)[self.protocol.select].percent
        return f"step {told} ({self.protocol.select} {number(score, percent)})"

    def _splits(self) -> dict[str, Split]:
        if self.test.split.folds:
            return {"test": self.test.split}
        (division,) = self.plan.data.divisions
        own = {name: Scored.of(self.plan.data.truth, division.keys[name]).split for name in ("train", "valid")}
        return {**own, "test": self.test.split}

    def _facts(self) -> dict[str, str]:
        config = self.config
        step = f"{config.trainer.max_steps} steps of {config.global_batch} clips, {config.optimizer.name}, "
        step += f"learning rate {config.optimizer.lr:g}"
        patience = config.trainer.patience
        stop = f", ended after {patience} evaluations without a better one" if patience else ""
        facts = {
            "training": f"encoder and {config.head.name} head together, {step}; the step with the best "
            f"{self.protocol.select} on valid{stop}",
            "seeds": ", ".join(map(str, config.seeds)),
        }
        training = config.encoder_training(config.last_row)
        if training != EncoderTraining():
            facts["encoder training"] = ", ".join(f"{name} {value}" for name, value in vars(training).items())
        if config.balanced:
            facts["loss"] = "classes weigh the same, or positives and negatives of every emotion"
        if config.best_of:
            facts["best of"] = f"of every {config.best_of} seeds the one that is best on valid"
        return {**facts, **common_facts(self.plan.data.divisions), **self.plan.facts}
