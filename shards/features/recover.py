"""From what an encoder says it takes back to the features that compute it: nobody configures a probe's features."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from shards.features.config import AudioFeature, Feature, FeaturesConfig, VideoFeature, build
from shards.features.stored import StoredSequence
from triptych.config import UserError
from triptych.modalities import FeatureSpec

_CHOICES: dict[str, type] = {"audio": AudioFeature, "video": VideoFeature}


def features_of(inputs: Mapping[str, FeatureSpec]) -> dict[str, Feature]:
    """Modality -> feature with exactly the spec that is asked for; words need none.

    Args:
        inputs: `Encoder.inputs`.

    Raises:
        UserError: this version of the code does not compute those numbers.
    """
    return {modality: _feature(modality, spec) for modality, spec in inputs.items() if not spec.is_words}


def _feature(modality: str, spec: FeatureSpec) -> Feature:
    if spec.encoder is not None:
        return StoredSequence(spec)
    choice = _CHOICES[modality]
    kinds = get_type_hints(choice)
    if spec.name not in kinds:
        raise UserError(f"the encoder takes {spec.name} for {modality}; this version knows {', '.join(kinds)}")
    schema: Any = next(kind for kind in get_args(kinds[spec.name]) if dataclasses.is_dataclass(kind))
    known = {**dict(spec.settings), "rate_hz": spec.rate_hz}
    settings = {field.name: known[field.name] for field in dataclasses.fields(schema) if field.name in known}
    config = FeaturesConfig(**{modality: choice(**{spec.name: schema(**settings)})})
    feature = build(config)[modality]
    if feature.spec != spec:
        differs = [name for name, value in vars(spec).items() if getattr(feature.spec, name) != value]
        raise UserError(
            f"the encoder takes a {spec.name} that differs in {', '.join(differs)} from what this version computes; "
            "install the version that trained it"
        )
    return feature
