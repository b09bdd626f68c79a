"""Checkpoints that are whole or absent: written aside, hashed, flushed to the disk, then renamed.

checkpoints/step-00001000/
    model.safetensors       whole fp32 weights and buffers, whatever the world size and ZeRO stage
    optimizer.safetensors   the optimizer's moments, and AdamW's step counts
    loss_scale.safetensors  of fp16
    state.json              step, and what the caller adds
    encoder/                what linear_probe, finetune and release load
    manifest.json           bytes and SHA-256 of every file above
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from triptych.config import UserError
from triptych.files import sha256
from triptych.refusals import follow_umask, move, sync
from triptych.training.distributed import Distributed
from triptych.training.engine import Files

logger = logging.getLogger(__name__)

SaveEncoder = Callable[[Path, dict[str, Tensor]], None]
"""Writes an encoder's folder, given its whole weights (triptych.models.load.save_encoder)."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run; every method is a collective, and rank 0 alone writes and deletes."""

    folder: Path
    keep: int
    """How many of the newest are kept; the best is kept beside them."""
    distributed: Distributed

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(
        self,
        step: int,
        files: Files,
        extra: Mapping[str, Any],
        encoder: dict[str, Tensor],
        save_encoder: SaveEncoder,
    ) -> None:
        """Write the checkpoint of a step.

        Args:
            step: finished optimizer steps.
            files: file name -> tensors (Engine.state); only rank 0's are read.
            extra: for state.json.
            encoder: whole weights of the encoder (Engine.encoder_state).
            save_encoder: writes them as a folder that loads by itself.

        Raises:
            UserError: on every rank, where rank 0 could not write; older checkpoints are as they were.
        """

        def write() -> None:
            temporary = self.folder / f".{self.path(step).name}.tmp"
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                for name, tensors in files.items():
                    save_file(tensors, temporary / f"{name}.safetensors")
                    follow_umask(temporary / f"{name}.safetensors")
                (temporary / "state.json").write_text(json.dumps({"step": step, **extra}, indent=1))
                save_encoder(temporary / "encoder", encoder)
                _seal(temporary)
                shutil.rmtree(self.path(step), ignore_errors=True)  # of an earlier start, if any
                move(temporary, self.path(step))
                sync(self.folder)
            except Exception as error:  # safetensors has an error of its own for a full disk
                shutil.rmtree(temporary, ignore_errors=True)
                if isinstance(error, OSError) or "SafetensorError" in type(error).__name__:
                    raise UserError(
                        f"{self.path(step)}: the checkpoint could not be written ({error}); older ones are untouched. "
                        f"Make room or mend the disk, then start the same command again"
                    ) from error
                raise

        self.distributed.on_main(write)

    def prune(self, best: int | None) -> None:
        """Delete all but the newest `keep` and the best step's."""

        def delete() -> None:
            steps = self._steps()
            for step in steps[: max(0, len(steps) - self.keep)]:
                if step != best:
                    shutil.rmtree(self.path(step))

        self.distributed.on_main(delete)

    def newest_good(self) -> int | None:
        """Step of the newest checkpoint whose files are what was written; None where there is none at all.

        Damaged ones that are newer are set aside as damaged-step-..., so that they count for nothing.

        Raises:
            UserError: there are checkpoints and all are damaged; starting over would hide it.
        """

        def look() -> int | None:
            steps = self._steps()
            for step in reversed(steps):
                damage = find_damage(self.path(step))
                if damage is None:
                    for newer in steps[steps.index(step) + 1 :]:
                        aside = self.folder / f"damaged-{self.path(newer).name}"
                        shutil.rmtree(aside, ignore_errors=True)
                        move(self.path(newer), aside)
                    return step
                logger.warning("warning: %s is damaged (%s); trying the one before", self.path(step), damage)
            if steps:
                raise UserError(
                    f"{self.folder}: none of the {len(steps)} checkpoints is whole; to start over from step 0, remove "
                    f"this folder or choose another run name"
                )
            return None

        return self.distributed.on_main(look)

    def load(self, step: int) -> tuple[Files, dict[str, Any]]:
        """Tensors and state.json of a step's checkpoint, read by every rank.

        Raises:
            UserError: on every rank, where the checkpoint is missing or not what was written.
        """
        self.distributed.on_main(lambda: self.refuse_damaged(step))
        folder = self.path(step)
        files = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
        return files, json.loads((folder / "state.json").read_text())

    def refuse_damaged(self, step: int) -> None:
        """Look at a checkpoint before anything of it is used; on one rank alone.

        Raises:
            UserError: it is missing, or not what was written.
        """
        if (damage := find_damage(self.path(step))) is not None:
            others = [other for other in self._steps() if other != step and find_damage(self.path(other)) is None]
            way_out = (
                f"the whole ones are of steps {', '.join(map(str, others))}" if others else "no other one is whole"
            )
            raise UserError(
                f"{self.path(step)}: this checkpoint is damaged ({damage}), and its weights are wanted: put it back "
                f"from a copy, or remove its folder, and the same command does without it ({way_out})"
            )

    def _steps(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, None if nothing is."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, entry in manifest["files"].items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if (folder / name).stat().st_size != entry["bytes"]:
                return f"{name} has {(folder / name).stat().st_size} bytes instead of {entry['bytes']}"
            if sha256(folder / name) != entry["sha256"]:
                return f"{name} does not match its hash"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"manifest.json: {error}"
    return None


def _seal(folder: Path) -> None:
    """Write the manifest of a folder and flush everything to the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files
    }
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": entries}, indent=1))
    for path in [*files, folder / "manifest.json", *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)
