"""Weights that others trained: torchvision's by name, or a file of any library's. Nothing of it is unpickled freely.

Loads torch only where weights are read, as features are described in places that need no torch.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.config import UserError


def read_weights(
    setting: str, weights: str, published: Any, max_bytes: int, inside: Sequence[str] = ()
) -> dict[str, Any]:
    """Name -> tensor, on the CPU.

    Args:
        setting: key in the config, for messages.
        weights: a name of `published`, downloaded once and checked by its hash, or a .safetensors or .pth file.
        published: torchvision's enum of the network's weights, or None where it has none.
        max_bytes: of a file.
        inside: entries of a checkpoint that may hold its weights; without any of them, it is the weights itself.

    Raises:
        UserError: they cannot be had, or hold anything else than tensors.
    """
    import torch

    by_name = published is not None and weights in published.__members__
    try:
        if by_name:
            state: Any = published[weights].get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
        elif not Path(weights).is_file():
            raise UserError(f"{setting}: there is no file {weights!r}; give the path of the weights")
        elif (size := Path(weights).stat().st_size) > max_bytes:
            raise UserError(f"{setting}: {weights} has {size} bytes; such weights have less than {max_bytes}")
        elif weights.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(weights)
        else:
            with torch.serialization.safe_globals([Namespace]):  # fairseq's arguments: names and values, nothing runs
                state = torch.load(weights, map_location="cpu", weights_only=True)
        if isinstance(state, dict):
            state = next((state[name] for name in inside if name in state), state)
    except UserError:
        raise
    except Exception as error:  # torch's, safetensors' and the download's have no class in common
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if by_name:
            said = _fetch(setting, weights, published[weights].url, said)
        else:
            said = f"{setting}: {weights} holds no weights that can be read without running code from it ({said})"
        raise UserError(said) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{setting}: {weights} holds something else than names and tensors")
    return dict(state)


def _fetch(setting: str, weights: str, url: str, said: str) -> str:
    file = Path("FOLDER", url.rpartition("/")[2])
    return (
        f"{setting}: {weights} cannot be downloaded ({said}). Fetch {url} on a machine that can, and give its path: "
        f"{setting}={file}"
    )


def fitting(model: Any, state: dict[str, Any], setting: str, weights: str, network: str) -> dict[str, Any]:
    """What a model takes of the weights; more may be there, such as the last layer for classes.

    Args:
        model: with its library's names.
        state: of `read_weights`.
        setting: key in the config, for messages.
        weights: as configured, for messages.
        network: its name, for messages.

    Raises:
        UserError: a name is missing or has another shape.
    """
    wanted = model.state_dict()
    if wrong := _wrong(wanted, state):
        raise UserError(f"{setting}: {weights} is no {network} as its library names it: {'; '.join(wrong[:3])}")
    return {name: state[name] for name in wanted}


def load_exactly(model: Any, state: Mapping[str, Any], setting: str, weights: str, network: str) -> None:
    """Give a model weights that are its own, no more and no less.

    Args:
        model: with the names that its authors gave.
        state: of `read_weights`, less what the model is known not to take.
        setting: key in the config, for messages.
        weights: as configured, for messages.
        network: its name, for messages.

    Raises:
        UserError: a name is missing, unknown or has another shape.
    """
    wanted = model.state_dict()
    wrong = _wrong(wanted, state) + [f"{name} has no place" for name in state if name not in wanted]
    if wrong:
        count = "" if len(wrong) <= 3 else f", and {len(wrong) - 3} more"
        raise UserError(f"{setting}: {weights} is no {network}: {'; '.join(wrong[:3])}{count}")
    model.load_state_dict(state)


def _wrong(wanted: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} is not there" if name not in state else f"{name} is {list(state[name].shape)}, not {list(value.shape)}"
        for name, value in wanted.items()
        if name not in state or state[name].shape != value.shape
    ]
