"""Weights that others trained: torchvision's by name, or a file of any library's. Nothing of it is unpickled freely.

Loads torch only where weights are read, as features are described in places that need no torch.
"""

from pathlib import Path
from typing import Any

from triptych.config import UserError


def read_weights(setting: str, weights: str, published: Any, max_bytes: int) -> dict[str, Any]:
    """Name -> tensor, on the CPU.

    Args:
        setting: key in the config, for messages.
        weights: a name of `published`, downloaded once and checked by its hash, or a .safetensors or .pth file.
        published: torchvision's enum of the network's weights, or None where it has none.
        max_bytes: of a file.

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
        elif (size := Path(weights).stat().st_size) > max_bytes:
            raise UserError(f"{setting}: {weights} has {size} bytes; such weights have less than {max_bytes}")
        elif weights.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch's, safetensors' and the download's have no class in common
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if by_name:
            said = _fetch(setting, weights, published[weights].url, said)
        else:
            said = f"{setting}: {weights} holds no weights that can be read without running code from it ({said})"
        raise UserError(said) from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{setting}: {weights} holds something else than names and tensors")
    return state


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
    wrong = [
        f"{name} is not there" if name not in state else f"{name} is {list(state[name].shape)}, not {list(value.shape)}"
        for name, value in wanted.items()
        if name not in state or state[name].shape != value.shape
    ]
    if wrong:
        raise UserError(f"{setting}: {weights} is no {network} as its library names it: {'; '.join(wrong[:3])}")
    return {name: state[name] for name in wanted}
