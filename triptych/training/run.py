"""The run folder: what the run is (config.yaml), where it ran (environment.json) and how it went (metrics.jsonl)."""

import datetime
import json
import logging
import os
import platform
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from triptych import config as configs
from triptych import provenance
from triptych.config import UserError
from triptych.files import write_atomically
from triptych.refusals import lock, move
from triptych.training.distributed import Distributed

logger = logging.getLogger(__name__)

LOCK = ".lock"

LABELS_USED = "labels_used.json"
"""File of the run folder: names of the labels that the run trains on, each with where it comes from."""

PACKAGES = (
    "triptych-pretrain",
    "torch",
    "deepspeed",
    "accelerate",
    "transformers",
    "numpy",
    "webdataset",
    "av",
)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; `open` makes or re-opens it."""

    path: Path
    distributed: Distributed

    @classmethod
    def open(cls, path: Path, config: Any, distributed: Distributed, may_change: Collection[str] = ()) -> "RunFolder":
        """Create the folder, or re-open it for the same config (a collective). No other job may, while this one lives.

        Args:
            path: runs/<name>.
            config: the whole resolved config; it never changes after the start.
            distributed: of triptych.training.distributed.init.
            may_change: keys, or beginnings of keys, that another start may have otherwise, since the results do not
                depend on them but for rounding: where things lie, how the work is shared out. environment.json has each
                start's.

        Raises:
            UserError: another job is at work in the folder, it belongs to another config (with the keys that differ),
                or it is no run folder.
        """

        def prepare() -> None:
            file = path / "config.yaml"
            if not file.is_file() and path.is_dir() and any(child.name != LOCK for child in path.iterdir()):
                raise UserError(f"{path}: is not empty and has no config.yaml; choose another run name")
            path.mkdir(parents=True, exist_ok=True)
            _lock(path)
            changed = {}
            if file.is_file():
                before = _with_defaults(type(config), yaml.safe_load(file.read_text()))
                changed = _check_same(path, before, configs.to_dict(config), may_change)
            else:
                write_atomically(file, configs.dump(config))
            starts = path / "environment.json"
            earlier = _earlier_starts(starts)
            here = describe_environment(distributed) | ({"changed": changed} if changed else {})
            write_atomically(starts, json.dumps([*earlier, here], indent=1))

        distributed.on_main(prepare)
        return cls(path, distributed)

    def keep(self, name: str, content: str, what: str) -> None:
        """Write a file at the first start, and find it unchanged at every other one (a collective).

        Args:
            name: of the file in the folder.
            content: that it must have.
            what: the run began with, for the message: "other words".

        Raises:
            UserError: it has another content.
        """

        def write_or_compare() -> None:
            path = self.path / name
            if not path.exists():
                write_atomically(path, content)
            elif path.read_text(encoding="utf-8") != content:
                raise UserError(f"{path}: the run began with {what}; give it those again, or choose another run name")

        self.distributed.on_main(write_or_compare)

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    def export_encoder(self, checkpoint: Path) -> None:
        """Copy a checkpoint's encoder to encoder/, whole or not at all (a collective)."""

        def copy() -> None:
            temporary = self.path / ".encoder.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            # contents alone: the modes of files are the umask's
            shutil.copytree(checkpoint / "encoder", temporary, copy_function=shutil.copyfile)
            shutil.rmtree(self.path / "encoder", ignore_errors=True)
            move(temporary, self.path / "encoder")

        self.distributed.on_main(copy)


class MetricsLog:
    """metrics.jsonl and TensorBoard; on ranks other than 0 nothing is written.

    A line is {"step": finished steps, figure: value, ...}; one step may have a line of training figures and one of
    evaluation figures. Floats are written so that they read back bit-equal.
    """

    def __init__(self, run: RunFolder, start_step: int) -> None:
        """Open the log of a run that continues after `start_step`: later lines, of steps to be done again, are cut."""
        self._file = run.path / "metrics.jsonl"
        self._board: Any = None
        self._stream: Any = None
        if not run.distributed.is_main:
            return
        if self._file.is_file():
            kept = [json.dumps(row) for row in read_metrics(self._file) if row["step"] <= start_step]
            write_atomically(self._file, "".join(f"{line}\n" for line in kept))
        self._stream = self._file.open("a")
        from torch.utils.tensorboard import SummaryWriter  # a second, and only where it is written

        self._board = SummaryWriter(str(run.path / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a line."""
        if self._stream is None:
            return
        self._stream.write(json.dumps({"step": step, **figures}) + "\n")
        self._stream.flush()
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Put what was written on the disk: a checkpoint must not outlive the evaluations that chose it."""
        if self._stream is not None:
            os.fsync(self._stream.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """All lines so far; empty on ranks other than 0."""
        return read_metrics(self._file) if self._stream is not None else []

    def close(self) -> None:
        """Flush and close."""
        if self._stream is not None:
            self._stream.close()
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, but those that cannot be read, which a warning counts.

    The last one, as a killed process leaves it, may be half a line without a warning.
    """
    rows, lost = [], list[int]()
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif number < len(lines):
            lost.append(number)
    if lost:
        logger.warning(
            "warning: %s: %d lines cannot be read and are left out, first: line %d", path, len(lost), lost[0]
        )
    return rows


def _earlier_starts(path: Path) -> list[Any]:
    """What environment.json tells of starts before this one; a file that cannot be read is set aside."""
    if not path.is_file():
        return []
    try:
        earlier = json.loads(path.read_bytes())
        if isinstance(earlier, list):
            return earlier
    except ValueError:
        pass
    aside = path.with_name(f"damaged-{path.name}")
    move(path, aside)
    logger.warning("warning: %s cannot be read and is set aside as %s", path, aside.name)
    return []


def describe_environment(distributed: Distributed) -> dict[str, Any]:
    """Versions, commit, hardware and world size of this start."""
    cuda = distributed.device.type == "cuda"
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "world_size": distributed.world,
        "device": torch.cuda.get_device_name(distributed.device) if cuda else platform.processor() or "cpu",
        "cpus": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "commit": provenance.commit(),
    }


def versions() -> dict[str, str]:
    """Package -> version, of those that are installed and can change numbers."""
    return {name: version for name in PACKAGES if (version := provenance.version(name))}


def _lock(path: Path) -> None:
    """Keep other jobs out of a run folder until this process ends, however it ends.

    A POSIX lock: the operating system frees it, it reaches across nodes where the file system does, and loader workers,
    which may outlive a killed run by seconds, do not inherit it.
    """
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT)  # never closed, which would give up the lock
    if not lock(descriptor, wait=False, where=path):
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another job"
        raise UserError(
            f"{path}: {holder} is at work in this run folder; wait for its end, stop it, or choose another run name"
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())


def _with_defaults(schema: type, saved: Any) -> Any:
    """A saved config with the defaults of settings that are younger than it, so that its run can go on."""
    try:
        return configs.to_dict(configs.load(schema, saved))
    except UserError:  # a setting that is no more: the comparison names it
        return saved


def _check_same(path: Path, old: Any, new: Any, may_change: Collection[str]) -> dict[str, Any]:
    """What differs and may: key -> its value now."""
    before, now = (  # an empty mapping says as little as none: only what is in it is named
        {key: value for key, value in configs.flatten(one).items() if value != {}} for one in (old, new)
    )
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    free = [key for key in differing if any(key == name or key.startswith(f"{name}.") for name in may_change)]
    if keys := [key for key in differing if key not in free]:
        told = "; ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys)
        raise UserError(
            f"{path}: this run was started with another config ({told}). Choose another run name, or continue with "
            f"{path / 'config.yaml'} as the config"
        )
    return {key: now.get(key) for key in free}
