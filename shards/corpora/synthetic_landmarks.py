"""Where the 68 landmarks of a generated face are, and the csv file that OpenFace 2 would write of them.

The points are in iBUG's order and lie on what is drawn; the nose, which is not drawn, moves with the face. Nothing is
lost or noisy but for OpenFace's rounding to a tenth of a pixel. In the uniform kind the points stand still between
words, as the picture does.
"""

import numpy as np
from numpy.typing import NDArray

from shards.corpora.synthetic_render import (
    BROW_HALF_WIDTH,
    BROW_LIFT,
    BROW_Y,
    EYE,
    EYE_SIZE,
    FPS,
    JAW,
    MOUTH_LEVEL,
    MOUTH_Y,
    Look,
)

_EYE_TURNS = np.pi * (1 + np.array([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3]))
"""Six points around an eye, from its left corner over the top; 1/3 of half a turn apart."""
_OUTER = np.linspace(-1, 1, 7)
"""Along the upper lip, from corner to corner of the mouth."""
_INNER = np.array([-0.85, -0.4, 0.0, 0.4, 0.85])


def landmarks(look: Look) -> NDArray[np.float64]:
    """The points of every frame, [F, 68, 2] across and down, in units of the picture's side."""
    still = np.concatenate([_jaw(), np.zeros((10, 2)), _nose(), _eye(-1), _eye(1)]) * look.radius
    points = np.broadcast_to(still, (len(look.x), 48, 2)).copy()
    points[:, 17:27] = _brows(look)
    points = np.concatenate([points, _mouth(look)], axis=1)
    return points + np.stack([look.x, look.y], axis=1)[:, None]


def openface_csv(look: Look, size_px: int) -> str:
    """The file that OpenFace 2's `FeatureExtraction -2Dfp` writes: a blank after each comma, pixels in tenths.

    Args:
        look: the clip's face.
        size_px: side of the picture; the middle of its first pixel is 0.
    """
    names = ["frame", "face_id", "timestamp", "confidence", "success"]
    names += [f"{axis}_{point}" for axis in "xy" for point in range(68)]
    pixels = landmarks(look) * size_px - 0.5
    lines = [", ".join(names)]
    for index, row in enumerate(pixels.transpose(0, 2, 1).reshape(len(pixels), -1)):
        lines.append(f"{index + 1}, 0, {index / FPS:.3f}, 0.98, 1, " + ", ".join(f"{value:.1f}" for value in row))
    return "\n".join(lines) + "\n"


def _jaw() -> NDArray[np.float64]:
    """0 to 16: from the left of the picture around the chin."""
    turns = np.linspace(np.pi + 0.15, -0.15, 17)
    return np.stack([JAW[0] * np.cos(turns), JAW[1] * np.sin(turns)], axis=1)


def _nose() -> NDArray[np.float64]:
    """27 to 30 down the bridge, 31 to 35 below from left to right."""
    bridge = np.stack([np.zeros(4), np.linspace(EYE[1], 0.12, 4)], axis=1)
    below = np.stack([np.linspace(-0.15, 0.15, 5), [0.2, 0.22, 0.24, 0.22, 0.2]], axis=1)
    return np.concatenate([bridge, below])


def _eye(side: int) -> NDArray[np.float64]:
    """36 to 41 (-1, the one on the left) or 42 to 47 (1)."""
    rim = np.stack([EYE_SIZE[0] * np.cos(_EYE_TURNS), EYE_SIZE[1] * np.sin(_EYE_TURNS)], axis=1)
    return rim + np.array([side * EYE[0], EYE[1]])


def _brows(look: Look) -> NDArray[np.float64]:
    """17 to 26, from left to right."""
    across = np.linspace(BROW_HALF_WIDTH, -BROW_HALF_WIDTH, 5)  # from the outer end to the nose
    height = BROW_Y + BROW_LIFT * look.brow[:, None] * across
    left = np.stack(np.broadcast_arrays(-EYE[0] - across, height), axis=-1)
    right = left[:, ::-1] * (-1, 1)
    return np.concatenate([left, right], axis=1) * look.radius


def _mouth(look: Look) -> NDArray[np.float64]:
    """48 to 67: around the lips and around the opening, each from the left corner over the top."""
    rings = []
    for along, lip_width in ((_OUTER, look.lip_width), (_INNER, 0.0)):
        arch = np.sqrt(1 - along**2)
        half = look.mouth_opening[:, None] * arch + lip_width * (0.5 + 0.5 * arch)
        half[:, [0, -1]] = 0
        middle = MOUTH_Y * look.radius - look.mouth_curve[:, None] * (along**2 - MOUTH_LEVEL)
        across = look.mouth_half_width[:, None] * along
        top, bottom = (np.stack([across, middle + sign * half], axis=-1) for sign in (-1, 1))
        rings += [top, bottom[:, -2:0:-1]]
    return np.concatenate(rings, axis=1)
