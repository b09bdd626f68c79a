"""Whether a shard set has what an encoder takes and a protocol asks for, told before anything is read. No torch."""

from collections.abc import Iterable, Mapping

from shards.reading.index import ShardSet
from shards.words.words import Vocabulary
from triptych.config import UserError
from triptych.labels import CLASS, LabelSpec, form_asked, form_of_numbers
from triptych.modalities import FeatureSpec

WITHOUT = {"text": "without_words", "audio": "without_audio", "video": "without_video"}
"""Modality -> the manifest's count of clips that lack it."""


def check_suits(
    shard_set: ShardSet, inputs: Mapping[str, FeatureSpec], words: tuple[str, ...], labels: Mapping[str, LabelSpec]
) -> dict[str, str]:
    """What a reader of the results must know of how the set suits the encoder.

    Args:
        shard_set: that is read.
        inputs: modality -> feature, as shown to the encoder.
        words: the encoder's vocabulary, of one that reads words.
        labels: name -> what the protocol scores.

    Returns:
        "absent": modalities that no clip has; "known words": share of the training split's words that the vocabulary
        has. Each only where there is something to tell.

    Raises:
        UserError: no clip has one of the labels, it is of another form, no clip has any of the modalities, the
            vocabulary has none of the words, the encoder's towers are stored elsewhere, or its box of the frame is not
            these frames'.
    """
    manifest, folder = shard_set.manifest, shard_set.location
    check_stored(shard_set, inputs.values())
    check_box(shard_set, inputs.values())
    there = [*manifest.labels, *manifest.numbers]
    for label, spec in labels.items():
        if label not in there:
            raise UserError(f"{folder}: no clip has the label {label!r}; there are: {', '.join(there) or 'none'}")
        check_form(shard_set, label, spec)
    absent = [name for name in inputs if manifest.counts[WITHOUT[name]] == manifest.written]
    if len(absent) == len(inputs):
        raise UserError(f"{folder}: no clip has {' or '.join(inputs)}, which is all that the encoder is to see")
    told = {"absent": f"no clip has {' or '.join(absent)}"} if absent else {}
    if "text" in inputs and inputs["text"].is_words and not inputs["text"].is_pieces and "text" not in absent:
        counts, vocabulary = shard_set.word_counts(), Vocabulary(words)
        known = sum(count for word, count in counts.items() if vocabulary.id(word)) / max(1, sum(counts.values()))
        if not known:
            raise UserError(
                f"{folder}: the encoder's vocabulary has none of the words here; is it of this language? To leave the "
                f"text out, give inputs without it"
            )
        told["known words"] = f"{100 * known:.1f} % of the training split's words are in the encoder's vocabulary"
    return told


def check_stored(shard_set: ShardSet, specs: Iterable[FeatureSpec]) -> None:
    """Whether the set holds what towers said, where the encoder's towers are stored; other features can be computed.

    Raises:
        UserError: it does not, or holds what those of another encoder said.
    """
    for spec in specs:
        if spec.encoder is None:
            continue
        held = {one.name: one for one in map(FeatureSpec.from_json, shard_set.manifest.features)}
        if held.get(spec.name) == spec:
            continue
        holds = "holds none"
        if (other := held.get(spec.name)) is not None:
            settings, wanted = dict(other.settings), dict(spec.settings)
            differs = [name for name in wanted if settings.get(name) != wanted[name]]
            differs += [name for name in ("dtype", "shape", "version") if getattr(other, name) != getattr(spec, name)]
            holds = f"holds another, which differs in {', '.join(differs) or 'its length'}"
        raise UserError(
            f"{shard_set.location}: {holds}: {spec.name}, which the encoder reads out of the shards (computed by the "
            f"encoder with SHA-256 {spec.encoder[:12]}...); shards and encoder are written together, by `python -m "
            "shards features SHARDS encoder=ENCODER out=FOLDER`: give shards=FOLDER encoder=FOLDER/encoder"
        )


def check_box(shard_set: ShardSet, specs: Iterable[FeatureSpec]) -> None:
    """Whether an encoder that reads a fixed box of the frame was made for frames like these.

    A box means something for one way of cutting frames alone: the mouth in VoxCeleb2's face tracks is a piece of
    forehead in GRID's, and a part of the wall in RAVDESS's. Where the set was written with a box of its own, that says
    what its frames are like.

    Raises:
        UserError: the set's own box is another one.
    """
    held = {one.name: dict(one.settings) for one in map(FeatureSpec.from_json, shard_set.manifest.features)}
    for spec in specs:
        box, own = dict(spec.settings).get("box"), held.get(spec.name, {}).get("box")
        if box is None or own is None or box == own:
            continue
        raise UserError(
            f"{shard_set.location}: the encoder reads the box {list(box)} of each frame, and the box of these frames "
            f"is {list(own)}: it would be shown another part of the face than it knows, or none. Use an encoder that "
            "reads `faces`, which follow the face on any corpus, or one pretrained with this box, or leave the picture "
            f"out. If the frames are cut alike after all: write the shards with features.video.{spec.name}.box="
            f"{list(box)}"
        )


def check_form(shard_set: ShardSet, label: str, spec: LabelSpec) -> None:
    """Whether a label, where the set has it, is what is asked for.

    Raises:
        UserError: it has another form or rate.
    """
    manifest, asked = shard_set.manifest, form_asked(spec)
    form = CLASS if label in manifest.labels else asked
    if label in manifest.numbers:
        form = form_of_numbers(manifest.numbers[label]["rate_hz"])
    if form != asked:
        raise UserError(f"{shard_set.location}: label {label} is {form}, and is asked for as {asked}")
