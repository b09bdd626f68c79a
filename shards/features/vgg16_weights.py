"""Which weights VGG-16 has, told without loading them, and the network that has them. Only the latter loads torch."""

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.config import UserError, nearest
from triptych.files import sha256
from triptych.models.published import fitting, read_weights

if TYPE_CHECKING:
    import torch

PUBLISHED = {"IMAGENET1K_V1": "397923af"}
"""torchvision's names -> start of the file's SHA-256, which is part of its published file name (vgg16-397923af.pth)."""
MAX_BYTES = 2 * 2**30
"""Of a file of weights; VGG-16 has 0.53 GB of float32, 1.1 GB of float64."""
RANDOM, HASH = "random:", "sha256:"


def identity(weights: str) -> str:
    """What tells the weights from all others: a published name, `random:SEED` or `sha256:HEX`.

    A downloaded copy of published weights is those, wherever it lies. A file is read once a process.

    Args:
        weights: as `Vgg16Config.weights`.

    Raises:
        UserError: it names nothing that is there.
    """
    if weights in PUBLISHED:
        return weights
    if weights.startswith(RANDOM) and weights.removeprefix(RANDOM).isdecimal():
        return f"{RANDOM}{int(weights.removeprefix(RANDOM))}"
    if weights.startswith(HASH):
        if not re.fullmatch(r"[0-9a-f]{64}", weights.removeprefix(HASH)):
            raise UserError(f"vgg16.weights: {weights!r}: expected 64 hexadecimal digits after {HASH}")
        return _published(weights)
    path = Path(weights)
    if not path.is_file():
        choices = (*PUBLISHED, f"{RANDOM}SEED", f"{HASH}HEX")
        raise UserError(f"vgg16.weights: {weights!r} is no file, and no weights by name.{nearest(weights, choices)}")
    try:
        status = path.stat()
        if status.st_size > MAX_BYTES:
            raise UserError(f"vgg16.weights: {path} has {status.st_size} bytes; VGG-16 has less than {MAX_BYTES}")
        return _published(HASH + _hash_of(path.resolve(), status.st_mtime_ns, status.st_size))
    except OSError as error:
        raise UserError(f"vgg16.weights: {path} cannot be read: {error.strerror}") from None


def _published(hashed: str) -> str:
    return next((name for name, start in PUBLISHED.items() if hashed.startswith(HASH + start)), hashed)


@lru_cache(maxsize=8)
def _hash_of(path: Path, modified_ns: int, size: int) -> str:
    """Half a gigabyte takes a second, and features are built once a clip where clips are opened."""
    return sha256(path)


@lru_cache(maxsize=1)
def network(weights: str, which: str) -> "torch.nn.Module":
    """VGG-16 up to fc7, in evaluation mode, loaded once a process.

    It is on the GPU if there is one; not in a data loader's worker, where the GPU is the training's.

    Args:
        weights: as `Vgg16Config.weights`.
        which: their `identity`.

    Returns:
        [B, 3, 224, 224] float32 -> [B, 4096] float32.

    Raises:
        UserError: they cannot be had, or are no VGG-16.
    """
    import torch
    from torch.utils.data import get_worker_info

    if which.startswith(RANDOM):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(which.removeprefix(RANDOM)))
            model = _up_to_fc7()
    else:
        state = _state(weights)
        with torch.device("meta"):  # weights that are about to be replaced need neither memory nor random numbers
            model = _up_to_fc7()
        model.load_state_dict(fitting(model, state, "vgg16.weights", weights, "VGG-16"), assign=True)
    on_gpu = torch.cuda.is_available() and get_worker_info() is None
    return model.eval().requires_grad_(False).to("cuda" if on_gpu else "cpu", torch.float32)


def _up_to_fc7() -> Any:
    from torchvision.models import vgg16

    model = vgg16()
    model.classifier = model.classifier[:5]  # fc6, ReLU, dropout, fc7, ReLU; the classes are not wanted
    return model


def _state(weights: str) -> dict[str, Any]:
    """Name -> tensor, from the file or the download."""
    if weights.startswith(HASH):
        raise UserError(
            f"vgg16: these clips do not hold the feature of the weights {weights}, and a hash does not say where the "
            "weights are: write the feature into the shards with vgg16.weights=FILE"
        )
    from torchvision.models import VGG16_Weights

    return read_weights("vgg16.weights", weights, VGG16_Weights, MAX_BYTES)
