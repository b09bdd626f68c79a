"""Which code is at work: versions and, in a checkout, the commit. No torch."""

import importlib.metadata
import subprocess
from pathlib import Path

PACKAGE = "triptych-pretrain"


def version(package: str = PACKAGE) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Commit of the checkout this runs from, with "-dirty" where files differ; None outside a checkout.

    An installation inside somebody else's checkout is none: git must know this very file.
    """
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    described = ["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True, timeout=20)
        return subprocess.run([*git, *described], capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
