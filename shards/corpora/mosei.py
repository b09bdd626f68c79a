"""CMU-MOSEI (Zadeh et al. 2018): opinions on YouTube; sentiment in [-3, 3] and six emotions in [0, 3] a segment.

    <root>/CMU_MOSEI_Labels.csd                               "All Labels", see shards.corpora.csd
    <root>/CMU_MOSEI_TimestampedWords.csd                     optional: words with times
    <root>/Raw/Videos/Full/Combined/<video>.mp4               recordings, from which the clips are cut
    <root>/Raw/Audio/Full/WAV_16000/<video>.wav               optional: their sound
    <root>/Raw/Transcript/Segmented/Combined/<video>.txt      text of each segment, without word times

Keys are <video>/<start>_<end> in milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shards.corpora.segment_clips import Layout, SegmentsConfig, segment_clips
from shards.corpora.segment_words import mosei_lines
from shards.corpora.segments import SENTIMENT, Column, Published
from shards.record import RawClip

COLUMNS = (
    SENTIMENT,
    Column("happy", "happ", 0.0, 3.0),
    Column("sad", "sad", 0.0, 3.0),
    Column("anger", "ang", 0.0, 3.0),
    Column("surprise", "surpris", 0.0, 3.0),
    Column("disgust", "disgust", 0.0, 3.0),
    Column("fear", "fear", 0.0, 3.0),
)
"""In the order of "All Labels" (README of CMU_MOSEI in the CMU-MultimodalSDK)."""

PUBLISHED = Published(
    videos=3293,
    segments=23259,
    splits={"train": 16326, "valid": 1871, "test": 4659},
    source="CMU-MultimodalSDK issues 98 and 258; MMSA",
)
_TRANSCRIPTS = "Transcript/Segmented/Combined"


@dataclass(frozen=True, kw_only=True)
class MoseiConfig(SegmentsConfig):
    """CMU-MOSEI, or files in its layout."""

    labels: str = "CMU_MOSEI_Labels.csd"
    """Computational sequence of the labels, as given or relative to the root."""

    def clips(self) -> Iterator[RawClip]:
        """All segments; labels sentiment, happy, sad, anger, surprise, disgust and fear.

        Raises:
            UserError: see `shards.corpora.segment_clips.segment_clips`.
        """
        yield from segment_clips(self, self.labels, LAYOUT)


LAYOUT = Layout(
    columns=COLUMNS,
    published=PUBLISHED,
    videos="Videos/Full/Combined",
    sounds="Audio/Full/WAV_16000",
    transcripts=_TRANSCRIPTS,
    lines=lambda raw: mosei_lines(raw / _TRANSCRIPTS),
)
