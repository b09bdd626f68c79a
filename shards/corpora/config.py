"""Which raw corpus: a new one is a file beside this one and one line in `CorpusConfig`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from shards.corpora.avec import Avec2017Config, Avec2019Config
from shards.corpora.iemocap import IemocapConfig
from shards.corpora.meld import MeldConfig
from shards.corpora.mosei import MoseiConfig
from shards.corpora.mosi import MosiConfig
from shards.corpora.ravdess import RavdessConfig
from shards.corpora.synthetic import SyntheticConfig
from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.record import RawClip
from triptych.config import check_one_of


class Corpus(Protocol):
    """Knows a corpus' files, names and transcripts; opens no media."""

    def clips(self) -> Iterator[RawClip]:
        """All clips, keys unique, in an order that depends on nothing but the corpus.

        Raises:
            triptych.config.UserError: nothing in the expected layout, or files that contradict each other.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The raw corpus; exactly one."""

    voxceleb2: VoxCeleb2Config | None = None
    ravdess: RavdessConfig | None = None
    iemocap: IemocapConfig | None = None
    mosei: MoseiConfig | None = None
    mosi: MosiConfig | None = None
    meld: MeldConfig | None = None
    avec2017: Avec2017Config | None = None
    avec2019: Avec2019Config | None = None
    synthetic: SyntheticConfig | None = None

    def __post_init__(self) -> None:
        check_one_of(self, "corpus")
