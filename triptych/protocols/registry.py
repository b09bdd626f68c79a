"""The benchmarks by name; a new one is a file and a line here."""

from triptych.config import UserError, nearest
from triptych.protocols.protocol import Protocol
from triptych.protocols.ravdess import RAVDESS
from triptych.protocols.splits import Fold
from triptych.protocols.synthetic import SYNTHETIC

PROTOCOLS = {protocol.name: protocol for protocol in (RAVDESS, SYNTHETIC)}


def find(name: str, classes: tuple[str, ...] = ()) -> Protocol:
    """The protocol of that name, restricted to `classes` where any are given.

    Raises:
        UserError: no such protocol, or a class that it has not.
    """
    if name not in PROTOCOLS:
        raise UserError(f"protocol: no {name!r}.{nearest(name, tuple(PROTOCOLS))}")
    return PROTOCOLS[name].restricted(classes) if classes else PROTOCOLS[name]


def find_fold(name: str) -> Fold:
    """The division that `protocol/split` or `protocol/split/fold` names, as `ravdess/hicmae_6fold/2`.

    Raises:
        UserError: no such protocol, split or fold; the message has the nearest.
    """
    protocol, _, rest = name.partition("/")
    split, _, number = rest.partition("/")
    if number and not number.isdecimal():
        raise UserError(f"{name}: the fold {number!r} is no number, as in ravdess/hicmae_6fold/2")
    return find(protocol).fold(split, int(number) if number else None)
