"""Pictures through a pretrained image network of torchvision or timm (ResNet-50, ViT, ...), frame by frame, frozen or
training with everything else but for its batch norms, whose statistics would be those of a few clips.

A frame's vector is what the network's own classifier would see. Its layers are the outputs of the network's blocks (the
stages of a ResNet, the layers of a ViT), each the mean over its pixels or patches; the last one is the frame's vector,
with what the network has between its last block and its classifier.

The whole square is brought to the side that the weights were trained on: published pipelines cut the middle out of
photographs, but a crop of a face is its middle already.

Legend: B clips, T frames, M real frames of all clips, D width.
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from triptych.batch import Track
from triptych.config import UserError, nearest
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.published import fitting, read_weights
from triptych.models.towers.hub_model import HubModel
from triptych.models.towers.pictures import check_square, standardised
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace

PUBLISHED = "published"
MAX_BYTES = 8 * 2**30
"""Of a file of weights; ViT-g has 4 GB."""
FRAMES_AT_ONCE = 32
"""In the network: a clip of 10 s at 224 pixels would else take gigabytes."""
BLOCKS = ("blocks", "stages", "layers", "encoder.layers", "trunk_output", "features")
"""Where networks keep their blocks, ResNets aside: timm's ViT and EfficientNet, ConvNeXt, Swin, torchvision's ViT, its
RegNet, its others."""


@dataclass(frozen=True, kw_only=True)
class ImageModelConfig(TowerConfig):
    """Which network."""

    pretrained: ClassVar[bool] = True

    library: Literal["torchvision", "timm"]
    model: str
    """Its name there, such as resnet50, or vit_small_patch14_dinov2.lvd142m of timm, which names the weights too."""
    weights: str = PUBLISHED
    """published (downloaded once; torchvision's newest), one of torchvision's by name such as IMAGENET1K_V1, or a
    .safetensors or .pth file with the library's names. An exported encoder needs none of them."""

    def build(self, place: TowerPlace) -> "ImageTower":
        """See TowerConfig."""
        return ImageTower(self, place.spec, place.width)


class ImageTower(HubModel, Tower):
    """Frames -> the network -> mean over the frames -> linear layer, if one is wanted; see the module's text."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageModelConfig, spec: FeatureSpec, width: int) -> None:
        """Build it with random weights, from no file and no network: `start_weights` loads those of the config.

        Args:
            config: which network.
            spec: of `faces` or `face_crops`: [S, S] grey or [S, S, 3] RGB, uint8.
            width: of the pooled output; 0 for the mean as it is.

        Raises:
            ValueError: the feature is none of these.
            UserError: no such network, or one whose blocks cannot be told.
        """
        super().__init__()
        check_square("video.image", spec)
        self.config = config
        network, preset, self.sequence_width = _LIBRARIES[config.library](config)
        self.network: Any = network.requires_grad_(False).eval()
        self.blocks = tuple(_blocks(self.network, config))  # a tuple, so that they are not listed a second time
        self.side: int = preset["side"]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(preset[name]).view(3, 1, 1), persistent=False)
        self.width = width or self.sequence_width
        self.output = nn.Linear(self.sequence_width, width) if width else nn.Identity()

    @property
    def published(self) -> nn.Module:
        """See HubModel."""
        network: nn.Module = self.network
        return network

    def held(self) -> list[nn.Module]:
        """See HubModel: the batch norms."""
        return [part for part in self.published.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]

    def start_weights(self) -> None:
        """Take the weights that the config names.

        Raises:
            UserError: they cannot be had, or are those of another network.
        """
        setting, weights = "video.image.weights", self.config.weights
        enum = _torchvision_weights(self.config.model) if self.config.library == "torchvision" else None
        if enum is not None and weights == PUBLISHED:
            weights = enum.DEFAULT.name
        elif enum is None and weights == PUBLISHED:
            weights = _download(self.network.pretrained_cfg, self.config.model)
        if not Path(weights).is_file() and (enum is None or weights not in enum.__members__):
            near = nearest(weights, (PUBLISHED, *(enum.__members__ if enum else ())))
            raise UserError(f"{setting}: {weights!r} is no file, and no weights by name.{near}")
        state = read_weights(setting, weights, enum, MAX_BYTES)
        self.network.load_state_dict(fitting(self.network, state, setting, weights, self.config.model))

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower: the sequence has a step a frame. A hidden frame is a picture of the mean colour."""
        frames = track.values[track.mask]
        hidden = (torch.zeros_like(track.mask) if track.hidden is None else track.hidden)[track.mask]
        if not len(frames):  # one frame that is nobody's, so that there is a sequence of the right width
            frames, hidden = track.values.new_zeros(1, *track.values.shape[2:]), hidden.new_zeros(1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains):
            parts = [
                self._vectors(*some, layers is not None)
                for some in zip(frames.split(FRAMES_AT_ONCE), hidden.split(FRAMES_AT_ONCE), strict=True)
            ]
        kept = [Steps.of_real(torch.cat(rows), track.mask) for rows in zip(*parts, strict=True)]
        if layers is not None:
            layers += kept
        pooled = self.output(mean_pool(kept[-1].sequence, track.mask)) * track.present[:, None]
        return TowerOutput(sequence=kept[-1].sequence, mask=track.mask, pooled=pooled)

    def _vectors(self, frames: Tensor, hidden: Tensor, every: bool) -> tuple[Tensor, ...]:
        """[M, D] of every layer, or of the last one alone."""
        dtype = next(self.network.parameters()).dtype
        pictures = standardised(frames.to(dtype), self.side, self.mean, self.std)
        pictures = pictures.masked_fill(hidden[:, None, None, None], 0.0)
        between: list[Tensor] = []
        with _recorded(self.blocks if every else (), between):
            vectors = self.network(pictures)
        return *between[:-1], vectors


@contextmanager
def _recorded(blocks: tuple[nn.Module, ...], kept: list[Tensor]) -> Iterator[None]:
    """While it lasts, `kept` takes up what enters the first block and what leaves each."""
    handles = [block.register_forward_hook(lambda _, __, output: kept.append(_mean(output))) for block in blocks]
    handles += [
        block.register_forward_pre_hook(lambda _, inputs: kept.append(_mean(inputs[0]))) for block in blocks[:1]
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean(x: Tensor) -> Tensor:
    """[M, C, H, W], [M, H, W, C] or [M, patches, C] -> [M, C]; pictures are square, so H = W tells them apart."""
    if x.dim() == 4:
        return x.mean(dim=(2, 3) if x.shape[2] == x.shape[3] else (1, 2))
    return x.mean(dim=1) if x.dim() == 3 else x


def _blocks(network: nn.Module, config: ImageModelConfig) -> Iterator[nn.Module]:
    if hasattr(network, "layer1"):  # ResNet and its relatives, in both libraries
        yield from (getattr(network, f"layer{number}") for number in range(1, 5))
        return
    named = dict(network.named_modules())
    for path in BLOCKS:
        if path in named and any(True for _ in named[path].children()):
            yield from named[path].children()
            return
    raise UserError(
        f"video.image.model: {config.model} keeps its blocks where this version does not look ({', '.join(BLOCKS)}); "
        "take another network"
    )


def _torchvision(config: ImageModelConfig) -> tuple[Any, dict[str, Any], int]:
    """Network without its classifier, what its pictures are like, and its width."""
    from torchvision import models

    _check_name(config, models.list_models(module=models))
    weights = _torchvision_weights(config.model)
    network = models.get_model(config.model, weights=None)
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"video.image.model: {config.model} does not end in a linear classifier; take another network")
    parent, _, name = linear[-1].rpartition(".")
    owner = network.get_submodule(parent)
    width = getattr(owner, name).in_features
    setattr(owner, name, nn.Identity())
    preset = weights.__members__.get(config.weights, weights.DEFAULT).transforms()
    return network, {"side": preset.crop_size[0], "mean": preset.mean, "std": preset.std}, width


def _torchvision_weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name)


def _timm(config: ImageModelConfig) -> tuple[Any, dict[str, Any], int]:
    """See _torchvision."""
    try:
        import timm
    except ImportError:
        raise UserError(
            "video.image.library: timm is not installed: pip install 'triptych-pretrain[timm]', or take torchvision"
        ) from None
    _check_name(config, [*timm.list_models(), *timm.list_pretrained()])
    network: Any = timm.create_model(config.model, pretrained=False, num_classes=0)
    told = timm.data.resolve_model_data_config(network)
    preset = {"side": told["input_size"][-1], "mean": told["mean"], "std": told["std"]}
    return network, preset, getattr(network, "head_hidden_size", network.num_features)


_LIBRARIES: dict[str, Callable[[ImageModelConfig], tuple[Any, dict[str, Any], int]]] = {
    "torchvision": _torchvision,
    "timm": _timm,
}


def _check_name(config: ImageModelConfig, names: list[str]) -> None:
    if config.model not in names:
        near = difflib.get_close_matches(config.model, names, n=3)
        raise UserError(
            f"video.image.model: {config.library} has no {config.model!r}."
            + (f" Did you mean {' or '.join(near)}?" if near else "")
        )


def _download(published: dict[str, Any], model: str) -> str:
    """Path of timm's weights as safetensors, which timm itself would take only if it likes."""
    from huggingface_hub import hf_hub_download

    setting = "video.image.weights"
    if not (repository := published.get("hf_hub_id")):
        raise UserError(f"{setting}: timm publishes no weights for {model}; give a file of them")
    try:
        return hf_hub_download(repository, "model.safetensors")
    except Exception as error:  # the hub's and the connection's have no class in common
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{setting}: {model} cannot be downloaded ({said}). Fetch model.safetensors of {repository} on a machine "
            f"that can (hf download {repository} model.safetensors), and give its path: {setting}=FILE"
        ) from None
