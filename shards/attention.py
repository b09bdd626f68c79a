"""What an encoder attends to in chosen clips, over time and across modalities, as pictures and as numbers.

python -m shards attention SHARDS encoder=ENCODER keys=[KEY,KEY] out=FOLDER [stack=cross.audio] [layer=-1]

ENCODER is the encoder/ of a run, a checkpoint or a release, or a config in configs/encoder/. Keys are those of
`python -m shards show`. In the folder there are then, of each clip (a / in its key becomes a +):

KEY.png         frames, sound and words over one axis in seconds; under them, of each cross-modal stack, the weights
                of the words (rows) over sound and picture, or of sound and picture over the words, mean over the heads.
                A box is a word's own time: "at the same time 61 %, even 11 %" says how much of the attention lies in
                the boxes, and how much would if all steps had the same weight.
KEY.heads.png   the same, head by head.

attention.json  the weights [heads, queries, keys] behind the pictures, rounded, with the times of all steps.

stack=NAME draws another stack, as the attention inside a tower (towers.audio), or all whose names begin with it
(towers); without cross-modal stacks, the towers are drawn. layer=1 is the first of a stack, -1 the last. A clip that
lacks a modality is drawn without it. For a fine-tuned model: python -m finetune.attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from shards.pictures.attention_clips import Said, Subject, Wanted, choose, draw, find
from shards.reading.encoders import open_encoder
from shards.reading.index import ShardSet
from shards.reading.suits import check_suits
from triptych.batch import Batch
from triptych.config import load
from triptych.models.attention_maps import stacks


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(Wanted):
    """Which attention of which clips is drawn."""

    encoder: str
    """Folder of an encoder, or a config of published weights (see shards.reading.encoders)."""


def run(target: str, overrides: Sequence[str] = ()) -> int:
    """Draw the pictures and write the numbers.

    Args:
        target: the folder or URL of the shard set.
        overrides: of AttentionConfig.

    Returns:
        The exit status, 0.

    Raises:
        UserError: an unknown key, stack or layer, an encoder without attention, or one that does not suit the clips.
    """
    config, console = load(AttentionConfig, {}, overrides), Console()
    shard_set = ShardSet(target, config.cache)
    places = find(shard_set, config.keys)
    encoder = open_encoder(config.encoder, shard_set).encoder

    def say(batch: Batch) -> Said:
        encoder.encode(batch)
        return Said()

    subject = Subject(
        source=config.encoder,
        model=encoder,
        stacks={name: name for name in stacks(encoder)},
        encoder=encoder,
        shown=tuple(encoder.inputs),
        say=say,
    )
    choose(subject, config)  # mistakes, before the vocabularies are compared
    for fact in check_suits(shard_set, encoder.inputs, encoder.words, {}).values():
        console.print(fact, soft_wrap=True, markup=False)
    draw(subject, shard_set, places, config, console)
    return 0
