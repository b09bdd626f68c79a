"""The sound through a pretrained speech model of transformers (wav2vec 2.0, HuBERT, WavLM, data2vec, ...), frozen,
or training with everything else but for its convolutions, as in Baevski et al. 2020 (wav2vec 2.0).

The model reads `waveform` at the rate that it was trained on, standardised clip by clip where its own feature extractor
does that, and gives some 50 vectors a second.

Clips go through it together only where they are equally long, and never with padding. wav2vec2-base and its relatives
normalise groups of channels over all steps of a row, padding included, and were trained without an attention mask: in a
padded row a clip's numbers would depend on the longest clip beside it (transformers asks for exactly that, zeros and no
mask). For models that have a mask this is as right, and one rule serves all. On a CPU it costs nothing; a GPU is filled
by one clip of a few seconds as it is.

Legend: B clips, b clips of one length, S samples, T steps, D width.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil, prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from triptych.batch import Track
from triptych.config import UserError
from triptych.modalities import FeatureSpec
from triptych.models.blocks import mean_pool
from triptych.models.hub import be_quiet, not_loaded, plain
from triptych.models.towers.hub_model import HubModel
from triptych.models.towers.tower import Steps, Tower, TowerConfig, TowerOutput, TowerPlace

KEY = "audio.encoder.model"
EPS = 1e-7
"""Added to the variance, as transformers' Wav2Vec2FeatureExtractor does."""


@dataclass(frozen=True, kw_only=True)
class SpeechEncoderConfig(TowerConfig):
    """Which model."""

    pretrained: ClassVar[bool] = True

    model: str
    """Folder in transformers' format, or name on the model hub; its preprocessor_config.json tells the rate."""

    def build(self, place: TowerPlace) -> "SpeechTower":
        """See TowerConfig."""
        return SpeechTower(self, place.spec, place.width, place.saved)


@dataclass(frozen=True, kw_only=True)
class SpeechModel:
    """All that is needed to build the model again and feed it, without its weights."""

    config: dict[str, Any]
    """transformers' own."""
    sampling_rate: int
    """Samples a second that it was trained on."""
    do_normalize: bool
    """Each clip to zero mean and unit variance."""

    def to_json(self) -> str:
        """Content of speech_model.json."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, content: str) -> "SpeechModel":
        """What `to_json` wrote.

        Raises:
            ValueError: it is not that.
        """
        told = json.loads(content)
        names = {field.name for field in fields(cls)}
        if not isinstance(told, dict) or told.keys() != names:
            raise ValueError(f"expected {', '.join(sorted(names))}")
        return cls(**told)


class SpeechTower(HubModel, Tower):
    """Samples -> the model -> mean over its steps -> linear layer, if one is wanted; see the module's text."""

    def __init__(
        self, config: SpeechEncoderConfig, spec: FeatureSpec, width: int, speech_model: SpeechModel | None = None
    ) -> None:
        """Build it with fresh weights; `start_weights` loads the pretrained ones.

        Args:
            config: which model.
            spec: of `waveform`.
            width: of the pooled output; 0 for the mean as it is.
            speech_model: of a saved encoder; None asks the model's folder or the hub.

        Raises:
            ValueError: another feature, or another rate than the model's.
            UserError: no such model, or one that cannot be used.
        """
        super().__init__()
        if spec.name != "waveform":
            raise ValueError(
                f"audio.encoder: takes waveform, not {spec.name}; write features.audio: {{waveform: {{}}}}"
            )
        from transformers import AutoConfig, AutoModel  # 2 s: only for who has such an encoder

        be_quiet()
        self.config = config
        self.speech_model = speech_model if speech_model is not None else describe(config)
        rate_hz = dict(spec.settings)["sample_rate_hz"]
        if rate_hz != self.speech_model.sampling_rate:
            raise ValueError(
                f"audio.encoder: {config.model} was trained on {self.speech_model.sampling_rate} samples a second, and "
                f"waveform.sample_rate_hz is {rate_hz}"
            )
        settings = AutoConfig.for_model(**self.speech_model.config)
        model = AutoModel.from_config(settings, trust_remote_code=False, dtype=torch.float32)
        self.model = model.requires_grad_(False).eval()
        (self._step_samples,), self._hop = spec.shape, prod(settings.conv_stride)
        self.shortest = _receptive_field(settings.conv_kernel, settings.conv_stride)
        adapted = getattr(settings, "add_adapter", False) and settings.output_hidden_size
        self.sequence_width: int = adapted or settings.hidden_size
        self.width = width or self.sequence_width
        self.output = nn.Linear(self.sequence_width, width) if width else nn.Identity()

    @property
    def published(self) -> nn.Module:
        """See HubModel."""
        return self.model

    def held(self) -> list[nn.Module]:
        """See HubModel: the convolutions over the samples."""
        return [self.model.feature_extractor]

    def start_weights(self) -> None:
        """Load the pretrained weights.

        Raises:
            UserError: they are not there, or do not fit; never is a weight left random.
        """
        from transformers import AutoConfig, AutoModel

        name = self.config.model
        try:
            model, info = AutoModel.from_pretrained(
                name,
                config=AutoConfig.for_model(**self.speech_model.config),
                weights_only=True,  # HuBERT's and WavLM's are published as pytorch_model.bin: no code runs from it
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # torch's unpickler, safetensors and the hub have no class in common
            raise UserError(not_loaded(KEY, name, "weights", error)) from None
        if missing := sorted(info["missing_keys"]):
            raise UserError(
                f"{KEY}: {name} lacks {len(missing)} weights of its own architecture, first: {missing[0]}; is it whole?"
            )
        self.model.load_state_dict(model.state_dict())

    def most_steps(self, num_steps: int) -> int:
        """See Tower; no fewer than those of the track."""
        return max(num_steps, ceil(num_steps * self._step_samples / self._hop))

    def forward(self, track: Track, layers: list[Steps] | None = None) -> TowerOutput:
        """See Tower. The steps are the model's own, each some 20 ms; the layers are those of its transformer, behind
        the convolutions."""
        present = track.present
        groups = _equally_long(track.mask)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains):
            states = [self._states(track, clips, layers is not None) for clips in groups]
        kept = [_among_all(groups, rows, present) for rows in zip(*states, strict=True)]
        if layers is not None:
            layers += kept
        sequence, mask = kept[-1].sequence, kept[-1].mask
        pooled = self.output(mean_pool(sequence, mask)) * present[:, None]
        return TowerOutput(sequence=sequence, mask=mask, pooled=pooled)

    def _states(self, track: Track, clips: Tensor, every: bool) -> tuple[Tensor, ...]:
        """[b, T, D] of clips of one length: of every layer, or of the last one alone."""
        length = max(1, int(track.mask[clips[0]].sum()))
        part = {name: getattr(track, name)[clips, :length] for name in ("values", "mask")}
        seen = part["mask"] if track.hidden is None else part["mask"] & ~track.hidden[clips, :length]
        samples = standardised(part["values"].float(), seen, self.speech_model.do_normalize)
        samples = nn.functional.pad(samples, (0, max(0, self.shortest - samples.shape[1])))
        dtype = next(self.model.parameters()).dtype
        said = self.model(input_values=samples.to(dtype), output_hidden_states=every)
        # a norm or an adapter behind the last block belongs to it
        return (*(said.hidden_states[:-1] if every else ()), said.last_hidden_state)


def describe(config: SpeechEncoderConfig) -> SpeechModel:
    """Read a model's config and what it wants to be fed.

    Raises:
        UserError: no such model, or not one that reads samples.
    """
    from transformers import AutoConfig, AutoFeatureExtractor

    name = config.model
    try:
        settings = AutoConfig.from_pretrained(name, trust_remote_code=False)
        extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(not_loaded(KEY, name, "config and feature extractor", error)) from None
    if not hasattr(settings, "conv_kernel") or "input_values" not in extractor.model_input_names:
        raise UserError(
            f"{KEY}: {name} is a {settings.model_type} model; expected one that reads the samples themselves: "
            "wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech, ..."
        )
    settings.mask_time_prob = settings.mask_feature_prob = 0.0  # else it has a vector that only its training used
    return SpeechModel(
        config=plain(settings), sampling_rate=extractor.sampling_rate, do_normalize=bool(extractor.do_normalize)
    )


def standardised(values_BTS: Tensor, seen_BT: Tensor, normalize: bool) -> Tensor:
    """Waveforms of equally long clips.

    Args:
        values_BTS: steps of samples.
        seen_BT: steps that are not hidden; the others become silence, after mean and variance are taken without them.
        normalize: each clip to zero mean and unit variance.

    Returns:
        [B, T * S].
    """
    seen = seen_BT[..., None].expand_as(values_BTS).flatten(1)
    x = values_BTS.flatten(1) * seen
    if normalize:
        count = seen.sum(dim=1, keepdim=True).clamp(min=1)
        x = (x - x.sum(dim=1, keepdim=True) / count) * seen
        x = x / (x.square().sum(dim=1, keepdim=True) / count + EPS).sqrt()
    return x


def _equally_long(mask_BT: Tensor) -> list[Tensor]:
    """Indices of the clips that have sound, by length. Where none has, the first one stands for all, so that there is a
    sequence of the right widths (all of it padding)."""
    lengths = mask_BT.sum(dim=1)
    groups = [(lengths == length).nonzero()[:, 0] for length in lengths.unique().tolist() if length]
    return groups or [lengths.new_zeros(1)]


def _among_all(groups: Sequence[Tensor], rows: Sequence[Tensor], present: Tensor) -> Steps:
    """[b, T, D] of each group -> [B, T, D] of all clips, padded to the longest."""
    sequence = rows[0].new_zeros(len(present), max(x.shape[1] for x in rows), rows[0].shape[2])
    mask = torch.zeros(sequence.shape[:2], dtype=torch.bool, device=present.device)
    for clips, x in zip(groups, rows, strict=True):
        sequence[clips, : x.shape[1]] = x
        mask[clips, : x.shape[1]] = True
    return Steps.zeroed(sequence, mask & present[:, None])


def _receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that the first step is computed from; a shorter clip is followed by silence."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
