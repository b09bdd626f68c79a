"""The benchmarks by name; a new one is a file and a line here."""

from triptych.config import UserError, nearest
from triptych.protocols.avec import AVEC2017, AVEC2019
from triptych.protocols.iemocap import IEMOCAP, IEMOCAP_6, IEMOCAP_HAPPY
from triptych.protocols.meld import MELD, MELD_SENTIMENT
from triptych.protocols.mosei import MOSEI_EMOTION, MOSEI_EMOTION_KHARE, MOSEI_SENTIMENT
from triptych.protocols.mosi import MOSI
from triptych.protocols.protocol import Protocol
from triptych.protocols.ravdess import RAVDESS, RAVDESS_6, RAVDESS_7
from triptych.protocols.splits import Fold
from triptych.protocols.synthetic import SYNTHETIC

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        RAVDESS,
        RAVDESS_7,
        RAVDESS_6,
        MOSEI_EMOTION,
        MOSEI_EMOTION_KHARE,
        MOSEI_SENTIMENT,
        MOSI,
        IEMOCAP,
        IEMOCAP_HAPPY,
        IEMOCAP_6,
        MELD,
        MELD_SENTIMENT,
        AVEC2017,
        AVEC2019,
        SYNTHETIC,
    )
}


def find(name: str, classes: tuple[str, ...] = ()) -> Protocol:
    """The protocol of that name, restricted to `classes` where any are given.

    Raises:
        UserError: no such protocol, or a class that it has not.
    """
    if name not in PROTOCOLS:
        raise UserError(f"protocol: no {name!r}.{nearest(name, tuple(PROTOCOLS))}")
    return PROTOCOLS[name].restricted(classes) if classes else PROTOCOLS[name]


def find_fold(name: str) -> Fold:
    """The division that `corpus/split` or `corpus/split/fold` names, as `ravdess/hicmae_6fold/2`, `mosei/standard`; a
    protocol's name stands for its corpus.

    Raises:
        UserError: no such protocol, split or fold; the message has the nearest.
    """
    owner, _, rest = name.partition("/")
    split, _, number = rest.partition("/")
    if number and not number.isdecimal():
        raise UserError(f"{name}: the fold {number!r} is no number, as in ravdess/hicmae_6fold/2")
    of_corpus = {rule.name.split("/")[0]: protocol for protocol in PROTOCOLS.values() for rule in protocol.splits}
    protocols = {**of_corpus, **PROTOCOLS}
    if owner not in protocols:
        raise UserError(f"protocol: no {owner!r}.{nearest(owner, protocols)}")
    return protocols[owner].fold(split, int(number) if number else None)
