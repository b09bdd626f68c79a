"""The benchmarks by name; a new one is a file and a line here."""

from triptych.config import UserError, nearest
from triptych.protocols.protocol import Protocol
from triptych.protocols.ravdess import RAVDESS
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
