"""Who this process is among the ranks, and the few things that ranks say to each other outside of gradients."""

import contextlib
import datetime
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from triptych.config import UserError

T = TypeVar("T")

TELL_AFTER_S = 10.0
"""How long a rank waits for the others at the start before it says so."""
TIMEOUT_MINUTES = 10
"""How long a rank waits for the others before it calls the run dead. Nothing that a rank does alone takes that long."""


@dataclass(frozen=True)
class Launch:
    """What the launcher says of this process."""

    rank: int
    world: int
    local_rank: int


@dataclass(frozen=True)
class Distributed:
    """This process among the ranks of a run; `init` makes it."""

    rank: int
    world: int
    local_rank: int
    device: torch.device
    backend: str
    inherited: Mapping[str, str | None] = field(default_factory=dict)
    """Environment variables that `init` set, and what they were (None: not set)."""

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and talks to the user."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every rank's small value, in the order of ranks, on every rank (a collective).

        It travels pickled, but only between the processes of this run and never through a file.

        Raises:
            RuntimeError: the other ranks did not answer.
        """
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        with self._explaining():
            dist.all_gather_object(gathered, value)
        return gathered

    def sum(self, values: Tensor) -> Tensor:
        """The ranks' tensors, of equal shape and type and on `device`, added up on every rank (a collective).

        One message without pickling, for what is said at every step. The order of adding is fixed by the shape and the
        world size, so the same run gives the same bits.

        Raises:
            RuntimeError: the other ranks did not answer.
        """
        total = values.clone()
        if self.world > 1:
            with self._explaining():
                dist.all_reduce(total)
        return total

    def max(self, values: Tensor) -> Tensor:
        """As `sum`, the largest of each element."""
        largest = values.clone()
        if self.world > 1:
            with self._explaining():
                dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest

    def gather_rows(self, rows: Tensor) -> tuple[Tensor, slice]:
        """The ranks' rows under each other, in the order of ranks, on every rank (a collective).

        Args:
            rows: [B, W], on `device`; B may differ between ranks.

        Returns:
            [N, W], and where this rank's rows are.

        Raises:
            RuntimeError: the other ranks did not answer.
        """
        if self.world == 1:
            return rows, slice(0, len(rows))
        sizes = torch.zeros(self.world, dtype=torch.int64, device=rows.device)
        sizes[self.rank] = len(rows)
        counts = self.sum(sizes).tolist()
        padded = rows.new_zeros(max(counts), rows.shape[1])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        with self._explaining():
            dist.all_gather(parts, padded)
        start = sum(counts[: self.rank])
        gathered = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return gathered, slice(start, start + len(rows))

    def on_main(self, function: Callable[[], T]) -> T:
        """Call `function` on rank 0 and give its (small) result to all ranks (a collective).

        Raises:
            UserError: on every rank, with rank 0's message, where rank 0 met a UserError or OSError (disk full, ...).
        """
        outcome: tuple[str, Any] = ("absent", None)
        if self.is_main:
            try:
                outcome = ("value", function())
            except (UserError, OSError) as error:
                outcome = ("error", str(error))
        kind, value = self.gather(outcome)[0]
        if kind == "error":
            raise UserError(value)
        return value

    def agree(self, facts: Mapping[str, str]) -> None:
        """Make sure that all ranks work on the same (a collective): nodes may see other copies of a folder.

        Args:
            facts: what it is -> what tells it from others, as a hash.

        Raises:
            UserError: on every rank; names the first rank that differs from rank 0, and in what.
        """
        first, *others = self.gather(dict(facts))
        for rank, told in enumerate(others, start=1):
            differ = [f"{name} ({told.get(name)}, not {was})" for name, was in first.items() if told.get(name) != was]
            if differ:
                raise UserError(
                    f"rank {rank} works with another {' and another '.join(differ)} than rank 0: is an older copy "
                    "mounted on its node?"
                )

    def shutdown(self) -> None:
        """Leave the process group, and the environment as `init` found it: a job submitted by this process later would
        take its rank and world size for its own."""
        if dist.is_initialized():
            # DeepSpeed, where it is in use, has groups of its own, and would take them up again in the next run of this
            # process unless it destroys them itself.
            deepspeed = sys.modules.get("deepspeed.comm")
            (deepspeed if deepspeed and deepspeed.is_initialized() else dist).destroy_process_group()
        for name, value in self.inherited.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(
                f"rank {self.rank} lost the other ranks (it waits {TIMEOUT_MINUTES} minutes at most): one of them died "
                f"or hangs; the first error in the ranks' logs tells why"
            ) from error


def alone(device: torch.device) -> Distributed:
    """A group of one that nobody set up, for what is computed beside the ranks."""
    return Distributed(rank=0, world=1, local_rank=0, device=device, backend="none")


def init(device: Literal["auto", "cpu", "cuda"] = "auto") -> Distributed:
    """Join the process group that the launcher set up; without a launcher, be a group of one.

    Understood: torchrun and the deepspeed launcher (RANK, WORLD_SIZE, LOCAL_RANK), and Slurm's srun (SLURM_PROCID, ...
    with MASTER_ADDR and MASTER_PORT set by the batch script).

    Raises:
        UserError: half a launcher's environment, or a device that is not there.
    """
    launch = read_launch(os.environ)
    place = _device(device, launch)
    backend = "nccl" if place.type == "cuda" else "gloo"
    if place.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:  # ranks that each take all cores slow each other
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    inherited = {name: os.environ.get(name) for name in names}
    # DeepSpeed and Accelerate read these themselves, also where Slurm or nobody launched us.
    os.environ.update(RANK=str(launch.rank), WORLD_SIZE=str(launch.world), LOCAL_RANK=str(launch.local_rank))
    if not dist.is_initialized():
        timeout = datetime.timedelta(minutes=TIMEOUT_MINUTES)
        if launch.world == 1:  # no port, so nothing to collide with another run on this machine
            os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
            os.environ.setdefault("MASTER_PORT", "29500")
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
        else:
            with _waiting_told(launch):
                dist.init_process_group(backend, rank=launch.rank, world_size=launch.world, timeout=timeout)
    return Distributed(launch.rank, launch.world, launch.local_rank, place, backend, inherited)


@contextlib.contextmanager
def _waiting_told(launch: Launch) -> Iterator[None]:
    """Say for whom this rank waits, if that takes long: a rank that was never started is the usual reason."""
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"

    def tell() -> None:
        print(
            f"rank {launch.rank} of {launch.world} waits for the other ranks at {address}, {TIMEOUT_MINUTES} minutes "
            "at most; were all of them started (one process a rank, by srun or torchrun)?",
            file=sys.stderr,
            flush=True,
        )

    timer = threading.Timer(TELL_AFTER_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Rank, world size and local rank from a launcher's environment.

    Raises:
        UserError: some of a launcher's variables are set and others are not.
    """
    for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")):
        given = [name for name in names if name in environment]
        if not given or (names[0].startswith("SLURM") and environment.get("SLURM_NTASKS", "1") == "1"):
            continue
        rank, world = names[0], names[1]
        needed = [*names, "MASTER_ADDR", "MASTER_PORT"] if environment.get(world) != "1" else list(names)
        missing = [name for name in needed if name not in environment]
        if missing:
            raise UserError(
                f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} set, but not {', '.join(missing)}: start "
                f"with torchrun, with srun from slurm/*.sbatch, or unset {', '.join(given)} for one process"
            )
        launch = Launch(*(int(environment[name]) for name in names))
        if not 0 <= launch.rank < launch.world:
            raise UserError(f"{rank}={launch.rank} does not fit {world}={launch.world}")
        return launch
    return Launch(rank=0, world=1, local_rank=0)


def announced(environment: Mapping[str, str]) -> Launch:
    """Rank and number of ranks that a launcher, or an allocation of Slurm, announces, whether or not they can meet."""
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if world in environment:
            return Launch(int(environment.get(rank, "0")), int(environment[world]), 0)
    return Launch(rank=0, world=1, local_rank=0)


def _device(choice: str, launch: Launch) -> torch.device:
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if launch.local_rank >= count:
        raise UserError(
            f"device {choice}: process {launch.local_rank} of this node has no GPU of its own ({count} visible); "
            f"start {count or 'no'} processes a node, or set device=cpu"
        )
    place = torch.device("cuda", launch.local_rank)
    torch.cuda.set_device(place)
    return place
