"""From the pictures of a feature to what a published network wants: colours, its size, its mean and deviation.

Legend: N pictures, S side in pixels.
"""

from torch import Tensor
from torch.nn import functional

from triptych.modalities import FeatureSpec


def check_square(tower: str, spec: FeatureSpec) -> None:
    """Refuse a feature that is no square picture.

    Args:
        tower: its name in the config, for the message.
        spec: the feature.

    Raises:
        ValueError: it is not [S, S] grey or [S, S, 3] RGB, uint8.
    """
    shape = spec.shape
    square = len(shape) in (2, 3) and shape[0] == shape[1] and shape[2:] in ((), (3,))
    if spec.dtype != "uint8" or not square:
        raise ValueError(
            f"{tower}: takes square pictures, [S, S] or [S, S, 3] uint8, as of faces or face_crops; {spec.name} "
            f"has {list(shape)} {spec.dtype} a step"
        )


def standardised(values: Tensor, side: int, mean: Tensor, std: Tensor) -> Tensor:
    """Pictures as a network wants them.

    Args:
        values: [N, S, S] grey or [N, S, S, 3] RGB, 0 to 255, in the network's precision.
        side: of the network's pictures; others are shrunk or enlarged to it, whole.
        mean: [3, 1, 1] of RGB between 0 and 1.
        std: [3, 1, 1], likewise.

    Returns:
        [N, 3, side, side].
    """
    colours = values[..., None].expand(*values.shape, 3) if values.dim() == 3 else values
    pictures = colours.permute(0, 3, 1, 2) / 255
    if pictures.shape[-1] != side:
        pictures = functional.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True)
    return (pictures - mean) / std
