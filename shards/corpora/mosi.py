"""CMU-MOSI (Zadeh et al. 2016): 93 film reviews on YouTube; sentiment in [-3, 3] a segment.

    <root>/CMU_MOSI_Opinion_Labels.csd                    see shards.corpora.csd
    <root>/CMU_MOSI_TimestampedWords.csd                  optional: words with times
    <root>/Raw/Video/Full/<video>.mp4                     recordings, from which the clips are cut
    <root>/Raw/Audio/WAV_16000/Full/<video>.wav           optional: their sound
    <root>/Raw/Transcript/Segmented/<video>.annotprocessed    text of each segment by number, and
    <root>/Raw/Labels/OpinionLevelSentiment.csv               when each number is

Keys are <video>/<start>_<end> in milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shards.corpora.segment_clips import Layout, SegmentsConfig, segment_clips
from shards.corpora.segment_words import mosi_lines
from shards.corpora.segments import SENTIMENT, Published
from shards.record import RawClip

PUBLISHED = Published(
    videos=93,
    segments=2199,
    splits={"train": 1284, "valid": 229, "test": 686},
    source="Zadeh et al. 2016; folds of the CMU-MultimodalSDK",
)
_TRANSCRIPTS = "Transcript/Segmented"


@dataclass(frozen=True, kw_only=True)
class MosiConfig(SegmentsConfig):
    """CMU-MOSI, or files in its layout."""

    labels: str = "CMU_MOSI_Opinion_Labels.csd"
    """Computational sequence of the labels, as given or relative to the root."""

    def clips(self) -> Iterator[RawClip]:
        """All segments; label sentiment.

        Raises:
            UserError: see `shards.corpora.segment_clips.segment_clips`.
        """
        yield from segment_clips(self, self.labels, LAYOUT)


LAYOUT = Layout(
    columns=(SENTIMENT,),
    published=PUBLISHED,
    videos="Video/Full",
    sounds="Audio/WAV_16000/Full",
    transcripts=_TRANSCRIPTS,
    lines=lambda raw: mosi_lines(raw / _TRANSCRIPTS, raw / "Labels" / "OpinionLevelSentiment.csv"),
)
