"""Which weights of the encoder train, from when, and how fast.

A layer is an element of the encoder's lists of blocks, counted along each tower in the order in which its parts were
registered: embeddings and projections lie below the first block, what follows the last block counts to it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from triptych.config import UserError
from triptych.models.encoder import Encoder
from triptych.models.towers.hub_model import hub_models
from triptych.training.optim import Rate

TOWERS = ("input", "towers")
"""Parts of an encoder that see one modality each."""


Freeze = Literal["none", "hub", "towers", "all"]


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """How the encoder trains beside the head; for the fields see FinetuneConfig."""

    freeze: Freeze = "none"
    unfreeze_every: int = 0
    encoder_lr_scale: float = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("encoder_lr_scale", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} must lie above 0, and at most at 1")
        if self.unfreeze_every < 0:
            raise ValueError(f"unfreeze_every: {self.unfreeze_every} must be 0 or more")
        if self.unfreeze_every and self.freeze == "none":
            raise ValueError("unfreeze_every: nothing is frozen; set freeze to towers or all")

    @property
    def is_frozen(self) -> bool:
        """Whether no weight of the encoder ever trains."""
        return self.freeze == "all" and not self.unfreeze_every


def thaw(encoder: Encoder, training: EncoderTraining, *, from_scratch: bool) -> None:
    """Let models of others inside the encoder train, which are built frozen; unless nothing of it trains.

    Args:
        encoder: in place.
        training: how it is to train.
        from_scratch: whether its weights are fresh ones.
    """
    for model in () if training.is_frozen else hub_models(encoder):
        model.let_train(from_scratch)


def freeze(encoder: Encoder, training: EncoderTraining) -> list[nn.Module]:
    """Freeze in place what never trains, and return it.

    Raises:
        UserError: towers or models of others are to be frozen, and the encoder has none.
    """
    if training.freeze == "none" or training.unfreeze_every:
        return []
    parts = _parts(encoder, training.freeze)
    for part in parts:
        part.requires_grad_(False)
    return parts


def rates_of(encoder: Encoder, training: EncoderTraining) -> dict[str, Rate]:
    """Name of a parameter of the encoder -> its rate.

    Raises:
        UserError: as `freeze`.
    """
    late: set[int] = set()
    if training.unfreeze_every:
        late = {id(weight) for part in _parts(encoder, training.freeze) for weight in part.parameters()}
    weights = dict(encoder.named_parameters())
    return {
        name: Rate(
            scale=training.encoder_lr_scale * training.layer_decay**depth,
            from_step=training.unfreeze_every * (depth + 1) if id(weights[name]) in late else 0,
        )
        for name, depth in depths(encoder).items()
    }


def depths(encoder: nn.Module) -> dict[str, int]:
    """Name of a parameter -> layers above its own, 0 of the last."""
    lists = {name for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)}
    places: dict[str, tuple[str, int]] = {}
    seen: dict[str, list[str]] = {}
    for name, _ in encoder.named_parameters():
        group = _group(name, lists)
        blocks = seen.setdefault(group, [])
        block = next((path for path in _paths(name) if path.rpartition(".")[0] in lists), None)
        if block is not None and block not in blocks:
            blocks.append(block)
        places[name] = group, len(blocks)
    return {name: len(seen[group]) - place for name, (group, place) in places.items()}


def _parts(encoder: Encoder, which: str) -> list[nn.Module]:
    if which == "all":
        return [encoder]
    if which == "hub":
        if models := hub_models(encoder):
            return [model.published for model in models]
        raise UserError(
            "freeze: the encoder has no model of transformers, torchvision or timm; there are towers, all and none"
        )
    children: Mapping[str, nn.Module] = dict(encoder.named_children())
    if "towers" not in children:
        raise UserError("freeze: the encoder has no towers; there are all and none")
    return [children[name] for name in TOWERS if name in children]


def _group(name: str, lists: Collection[str]) -> str:
    """What layers are counted along: "towers.audio.0.weight" and "input.audio.weight" are of one tower."""
    first, *others = name.split(".")
    if first in TOWERS and others:
        return others[0]
    return first if first in lists else ".".join([first, *others[:1]])


def _paths(name: str) -> Iterator[str]:
    """ "a", "a.b", "a.b.c" of "a.b.c"."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))
