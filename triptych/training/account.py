"""What was read: how much of it was padding, which clips were cut or damaged; of a step and of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from triptych.batch import Batch
from triptych.config import UserError
from triptych.training.distributed import Distributed


@dataclass(frozen=True)
class Reading:
    """What some batches were made of."""

    clips: int = 0
    """Damaged ones too."""
    real_steps: int = 0
    all_steps: int = 0
    """With the padding, over all modalities."""
    cut: int = 0
    """Clips of which a modality was longer than its longest length."""
    damaged: tuple[tuple[int, str], ...] = ()
    """Sample id and what is wrong."""

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "Reading":
        """Count batches, on the CPU."""
        steps = [batch.num_steps for batch in batches]
        return cls(
            clips=sum(len(batch) for batch in batches),
            real_steps=sum(real for real, _ in steps),
            all_steps=sum(padded for _, padded in steps),
            cut=sum(batch.num_cut for batch in batches),
            damaged=tuple(pair for batch in batches for pair in batch.damaged),
        )

    def __add__(self, other: "Reading") -> "Reading":
        return Reading(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def numbers(self) -> tuple[int, ...]:
        """What ranks add up, for `over_ranks`."""
        return self.clips, self.real_steps, self.all_steps, self.cut, len(self.damaged)

    def over_ranks(self, numbers: Sequence[float], distributed: Distributed) -> "Reading":
        """What all ranks read (a collective where any met a damaged clip).

        Args:
            numbers: the sum of the ranks' `numbers`.
            distributed: over which damaged clips are told.
        """
        clips, real_steps, all_steps, cut, num_damaged = map(int, numbers)
        heard = distributed.gather(self.damaged) if num_damaged else []
        return Reading(clips, real_steps, all_steps, cut, tuple(sorted(pair for pairs in heard for pair in pairs)))


class Account:
    """What a run has read since its first step; travels in its checkpoints.

    Args:
        state: of an account, from a checkpoint.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {"clips": 0, "cut": 0, "damaged_reads": 0, "damaged": []}
        self._clips: int = state["clips"]
        self._cut: int = state["cut"]
        self._damaged_reads: int = state["damaged_reads"]
        self._damaged: dict[int, str] = dict(state["damaged"])

    def add(self, reading: Reading, max_damaged: int) -> None:
        """Add a step, the same on all ranks.

        Args:
            reading: over all ranks.
            max_damaged: most different clips that may be damaged.

        Raises:
            UserError: more are.
        """
        self._clips += reading.clips
        self._cut += reading.cut
        self._damaged_reads += len(reading.damaged)
        self._damaged |= dict(reading.damaged)
        if len(self._damaged) > max_damaged and reading.damaged:
            raise UserError(
                f"{len(self._damaged)} clips are damaged so far, and stream.max_damaged_share allows {max_damaged} of "
                f"this split. The last one: {reading.damaged[-1][1]}. The log names all of them; copy their shards "
                "again, then start the same command again"
            )

    def figures(self) -> dict[str, int]:
        """Counts for the log: clips that were damaged, how often one was met, how often a clip was cut."""
        return {
            "damaged_clips": len(self._damaged),
            "damaged_reads": self._damaged_reads,
            "cut_reads": self._cut,
        }

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "clips": self._clips,
            "cut": self._cut,
            "damaged_reads": self._damaged_reads,
            "damaged": sorted(self._damaged.items()),
        }

    def __str__(self) -> str:
        return (
            f"{len(self._damaged)} damaged clips were left out, in {self._damaged_reads} of {self._clips} reads; "
            f"{self._cut} reads were cut at a feature's max_length"
        )
