"""FAb-Net's encoder, Wiles et al. 2018, frozen: a face of 256x256 pixels -> one vector of width 256.

Eight convolutions (kernel 4, stride 2, padding 1) with 32, 64, 128, 256, 256, 256, 256 and 256 channels, LeakyReLU of
slope 0.2 between them, and batch normalisation behind all but the first and the last. Its statistics are constants
here (FrozenNorm): a frame gives the same vector in any batch. What decodes flow fields and masks is left out.

The modules have the names of the authors' checkpoints (`release_bmvc_fabnet.zip`; SSE-FT takes `affectnet_4views.pth`),
whose weights lie in the entry `state_dict_model`, in others in `state_dict`. Read in the authors' code, and in public
code that loads that file strictly: the layers, names, 32 channels, and RGB pixels in [0, 1] without normalisation. Not
verified on the file itself, which was not at hand. SSE-FT crops faces by RetinaFace; how wide is not told.

Legend: N pictures, C channels.
"""

import torch
from torch import Tensor, nn

from triptych.models.norms import FrozenNorm
from triptych.models.published import load_exactly, read_weights

WIDTH = 256
SIDE = 256
CHANNELS = (32, 64, 128, 256, 256, 256, 256, WIDTH)
SLOPE = 0.2
PART = "encoder."
COUNTERS = "num_batches_tracked"
"""Of batch normalisation that trains; files of torch before 0.4.1 have none."""
MAX_BYTES = 2**30


class FabNet(nn.Module):
    """Frozen: it trains neither weights nor what is in front of it."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
            layers.append(nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1))
            if 0 < number < len(CHANNELS) - 1:
                layers.append(FrozenNorm(outputs))
            layers.append(nn.LeakyReLU(SLOPE))
        self.encoder = nn.Sequential(*layers[:-1])
        self.requires_grad_(False)

    @classmethod
    def load(cls, setting: str, weights: str) -> "FabNet":
        """Build it with the weights of a file.

        Args:
            setting: key in the config, for messages.
            weights: one of the authors' checkpoints, or a .safetensors file with the same names.

        Raises:
            UserError: they cannot be read, or are not this network's.
        """
        state = read_weights(setting, weights, None, MAX_BYTES, inside=("state_dict_model", "state_dict"))
        model = cls()
        mine = {name: x for name, x in state.items() if name.startswith(PART) and not name.endswith(COUNTERS)}
        load_exactly(model, mine, setting, weights, "FAb-Net")
        return model

    @torch.no_grad()
    def forward(self, pictures: Tensor, blocks: list[Tensor] | None = None) -> Tensor:
        """One vector a picture.

        Args:
            pictures: [N, 3, 256, 256], RGB in [0, 1].
            blocks: takes up [N, C] of each convolution with what follows it, the mean over its pixels; None keeps
                nothing.

        Returns:
            [N, 256], the last of them.

        Raises:
            ValueError: the pictures have another size.
        """
        if pictures.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"FAb-Net takes pictures of 3x{SIDE}x{SIDE}, not {'x'.join(map(str, pictures.shape[1:]))}")
        x = pictures
        for layer in self.encoder:
            x = layer(x)
            if blocks is not None and isinstance(layer, nn.LeakyReLU):
                blocks.append(x.mean(dim=(2, 3)))
        vectors = x.flatten(1)
        if blocks is not None:
            blocks.append(vectors)
        return vectors
