"""Models of transformers, torchvision and timm inside of towers: frozen, unless they are let train."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import nn


class HubModel(nn.Module):
    """A part of an encoder around a model that others published.

    Frozen, as it is built, the model stays in evaluation mode, without dropout, and keeps no activations. Let train, it
    is a part like any other, but for what `held` names.
    """

    trains: bool = False
    """Whether it has been let train."""
    _checkpointing = False

    @property
    @abstractmethod
    def published(self) -> nn.Module:
        """The model."""

    def held(self) -> Iterable[nn.Module]:
        """Parts of it that keep their published weights even then, and always stay in evaluation mode."""
        return ()

    def let_train(self, from_scratch: bool = False) -> None:
        """Train it with everything else from now on; from scratch, with those weights too that are else held."""
        self.trains = True
        self.published.requires_grad_(True)
        for part in () if from_scratch else self.held():
            part.requires_grad_(False)
        self.activation_checkpointing = self._checkpointing
        self.train(self.training)

    def train(self, mode: bool = True) -> "HubModel":
        """As of any module; what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self.held() if self.trains else (self.published,):
            part.eval()
        return self

    @property
    def activation_checkpointing(self) -> bool:
        """Compute activations again in the backward pass, in models that can; the engine sets it."""
        return self._checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        self._checkpointing = on
        model: Any = self.published
        if on and self.trains and getattr(model, "supports_gradient_checkpointing", False):  # frozen, it keeps none
            enable = getattr(model, "activation_checkpointing_enable", None)  # its name from transformers 5.23 on
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


def hub_models(module: nn.Module) -> list[HubModel]:
    """All inside of a module."""
    return [part for part in module.modules() if isinstance(part, HubModel)]
