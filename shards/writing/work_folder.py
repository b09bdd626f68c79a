"""`<out>/work/`: what there is to write and what is written; parts and restarts know nothing else. No torch.

    plan.json                  Plan: what was found and filtered, and the planned shards
    config.yaml                the config, for the command that goes on
    train-000000.jsonl         the clips of a planned shard, if a corpus has them; locked by the process that writes it
    train-000000.tar           the shard, whole or absent, with its index
    train-000000.index.json
    train-000000.report.json   Report: written last; a shard that has one is done

The merge moves the shards out and removes the folder.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from shards.counts.summary import Tally
from shards.record import Cut, RawClip, ShardInfo, Word
from triptych.config import UserError, flatten
from triptych.files import write_atomically
from triptych.refusals import FULL, lock, move, sync


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A shard before anything was opened: quarantined clips will make it smaller."""

    name: str
    """"train-000003"."""
    split: str
    num_clips: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a corpus or a shard set is to become; `found` = clips of the shards + filtered + quarantined."""

    command: str = "write"
    """Of `python -m shards`, which made the plan and goes on with it."""
    identity: dict[str, Any]
    """All of the config that the shards depend on."""
    corpus: str
    split: dict[str, Any]
    features: list[dict[str, Any]]
    max_quarantined_share: float
    found: int
    filtered: dict[str, int]
    quarantined: dict[str, str] = field(default_factory=dict)
    """Before anything is opened: what the corpus calls unusable, or the quarantine of the shard set that the clips come
    from."""
    encoded_anew: dict[str, int] = field(default_factory=dict)
    """Ending -> files of clips to write that no reader looks for, which are converted."""
    created_by: list[str] = field(default_factory=list)
    """What wrote that set."""
    shards: list[PlannedShard]

    @property
    def num_clips(self) -> int:
        """To be opened."""
        return sum(shard.num_clips for shard in self.shards)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Plan":
        """Rebuild a plan from `dataclasses.asdict`."""
        return cls(**{**values, "shards": [PlannedShard(**shard) for shard in values["shards"]]})


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a planned shard."""

    info: ShardInfo | None
    """None where every clip was quarantined."""
    quarantined: dict[str, str]
    """Key -> reason."""
    tally: Tally
    created_by: str
    """Version and commit of the code that wrote it."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        info = None if self.info is None else asdict(self.info)
        return {
            "info": info,
            "quarantined": self.quarantined,
            "tally": self.tally.to_json(),
            "created_by": self.created_by,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Report":
        """Rebuild a report."""
        info = None if values["info"] is None else ShardInfo(**values["info"])
        return cls(**{**values, "info": info, "tally": Tally.from_json(values["tally"])})


class Work:
    """The work folder of a shard set that is being written.

    Args:
        out: the shard set's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / "work"

    def command(self, plan: Plan) -> str:
        """That writes what is missing."""
        return f"python -m shards {plan.command} {self.folder / 'config.yaml'}"

    def prepare(self, identity: dict[str, Any], scan: Callable[[], None]) -> Plan:
        """The plan of a config: the one that is there, else the one that `scan` saves.

        Args:
            identity: field -> value of all that the shards depend on, see `as_identity`.
            scan: finds the clips and calls `save`.

        Raises:
            UserError: the folder already holds a shard set or the plan of another config, or cannot be written.
        """
        out = self.out
        try:
            out.mkdir(parents=True, exist_ok=True)
            file = (out / ".lock").open("w")
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror}") from None
        with file, full_disk_told(out):
            locked(file, wait=True)  # the parts of an array start at once; one of them scans
            try:
                if (out / "manifest.json").exists():
                    raise UserError(f"{out}: there is a shard set already; remove the folder, or choose out=FOLDER")
                plan = self.plan()
                if plan is None:
                    scan()
                    plan = self.plan()
                    assert plan is not None
            finally:
                (out / ".lock").unlink(missing_ok=True)
        there = plan.identity
        if differing := sorted(name for name in identity | there if identity.get(name) != there.get(name)):
            told = ", ".join(f"{name} {there.get(name)!r} (now {identity.get(name)!r})" for name in differing[:5])
            raise UserError(
                f"{out}: half written with {told}; go on with that config ({self.command(plan)}), remove "
                f"{self.folder}, or choose out=FOLDER"
            )
        return plan

    def save(self, plan: Plan, shards: Iterable[tuple[str, list[RawClip]]], config: str) -> None:
        """Make the folder with the plan and the clips of each shard, by its name; whole or not at all.

        If another process was faster, its plan stays.
        """
        folder = self.out / f".work-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            for name, clips in shards:
                with (folder / f"{name}.jsonl").open("w") as file:
                    file.writelines(_line(clip) for clip in clips)
                    file.flush()
                    os.fsync(file.fileno())
            (folder / "config.yaml").write_text(config)
            write_atomically(folder / "plan.json", json.dumps(asdict(plan), indent=1))
            try:
                move(folder, self.folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            sync(self.out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def plan(self) -> Plan | None:
        """None where nothing was planned yet.

        Raises:
            UserError: it cannot be read.
        """
        path = self.folder / "plan.json"
        if not path.exists():
            return None
        try:
            return Plan.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}: no plan of this version ({error}); remove {self.folder} and start again"
            ) from None

    @contextmanager
    def claim(self, shard: PlannedShard) -> Iterator[IO[str]]:
        """The shard's list of clips, locked against other processes while it is open.

        Raises:
            UserError: another process is writing the shard.
        """
        with (self.folder / f"{shard.name}.jsonl").open("r+") as file:
            if not locked(file):
                raise UserError(
                    f"{self.folder}: another process is writing {shard.name}; wait for it, or choose another part"
                )
            yield file

    def clips(self, shard: PlannedShard, file: IO[str]) -> list[RawClip]:
        """What `claim` gave, read. (Opening the list a second time and closing it would end the lock.)

        Raises:
            UserError: it is not what was planned.
        """
        try:
            clips = [_clip(line) for line in file]
        except (ValueError, TypeError, KeyError):
            clips = []
        if len(clips) != shard.num_clips:
            raise UserError(f"{file.name}: is damaged; remove {self.folder} and start again")
        return clips

    def is_done(self, shard: PlannedShard) -> bool:
        """Whether it has a report."""
        return self._report(shard).exists()

    def report(self, shard: PlannedShard) -> Report | None:
        """None where the shard is not done.

        Raises:
            UserError: the report cannot be read.
        """
        path = self._report(shard)
        try:
            return Report.from_json(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it and write the shard again") from None

    def reports(self, shards: Sequence[PlannedShard], *, retry: bool) -> dict[str, Report]:
        """Those of the shards that are done, by name; to `retry` one with quarantined clips is to forget it."""
        reports = {}
        for shard in shards:
            report = self.report(shard)
            if report is not None and retry and report.quarantined:
                self.forget(shard)
            elif report is not None:
                reports[shard.name] = report
        return reports

    def save_report(self, shard: PlannedShard, report: Report) -> None:
        """Call the shard done."""
        write_atomically(self._report(shard), json.dumps(report.to_json(), ensure_ascii=False))

    def forget(self, shard: PlannedShard) -> None:
        """Call the shard not done."""
        self._report(shard).unlink(missing_ok=True)

    def remove_unfinished(self, shard: PlannedShard) -> None:
        """Remove what a killed process left of a shard that is claimed."""
        for path in self.folder.glob(f".{shard.name}.*"):
            path.unlink(missing_ok=True)

    def save_quarantine(self, quarantined: dict[str, str]) -> Path:
        """For the user to read; a process has a file of its own."""
        path = self.folder / f"quarantined-{os.getpid()}.json"
        write_atomically(path, json.dumps(quarantined, indent=1, ensure_ascii=False))
        return path

    def remove(self) -> None:
        """Remove the folder, and those that killed scans left."""
        for folder in (self.folder, *self.out.glob(".work-*")):
            if folder.is_dir():
                shutil.rmtree(folder)

    def _report(self, shard: PlannedShard) -> Path:
        return self.folder / f"{shard.name}.report.json"


def part_of(part: str | None) -> tuple[int, int]:
    """(i, n) of "i/n"; None is all, (1, 1).

    Raises:
        ValueError: it is nothing of the kind.
    """
    if part is None:
        return 1, 1
    number, _, of = part.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"part: {part!r}; expected i/n with i from 1 to n, as in part=3/40")
    return int(number), int(of)


def as_identity(values: dict[str, Any]) -> dict[str, Any]:
    """A config's values by their paths, as "split.seed": 0, and as they come back from JSON."""
    return flatten(json.loads(json.dumps(values)))


def locked(file: IO[Any], *, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process holds it.

    A file system without locks cannot be asked. There, two writers of one shard are a waste and no harm: they write the
    same bytes, each under a name of its own.
    """
    return lock(file, wait=wait, where=Path(file.name).parent)


@contextmanager
def full_disk_told(out: Path) -> Iterator[None]:
    """A full disk or quota is a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"{out}: {error.strerror}; make room and start the same command again, shards that are done stay"
        ) from None


def _line(clip: RawClip) -> str:
    """A line of a list of clips; words as [text, start, end, confidence], a third of the size of objects."""
    values = {field.name: getattr(clip, field.name) for field in fields(clip)}
    for name in ("video", "audio"):
        values[name] = _absolute(values[name])
    values["attachments"] = {extension: _absolute(path) for extension, path in clip.attachments.items()}
    if clip.cut is not None:
        values["cut"] = asdict(clip.cut)
    if clip.words is not None:
        values["words"] = [[word.text, word.start_s, word.end_s, word.confidence] for word in clip.words]
    return json.dumps(values) + "\n"


def _clip(line: str) -> RawClip:
    values = json.loads(line)
    for name in ("video", "audio"):
        values[name] = None if values[name] is None else Path(values[name])
    values["attachments"] = {extension: Path(path) for extension, path in values["attachments"].items()}
    if values["cut"] is not None:
        cut = values["cut"]
        values["cut"] = Cut(**{**cut, "box": None if cut["box"] is None else tuple(cut["box"])})
    if values["words"] is not None:
        values["words"] = tuple(Word(*word) for word in values["words"])
    return RawClip(**values)


def _absolute(path: Path | None) -> str | None:
    """Parts may start in another folder."""
    return None if path is None else os.path.abspath(path)
