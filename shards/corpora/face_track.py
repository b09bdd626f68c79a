"""VoxCeleb2's face tracks: which part of which YouTube video a clip is, and how sure the makers were.

Identity  :  id00012
Reference :  21Uxsk56VDQ
Offset    :  -3
FV Conf   :  20.500 (1)
ASD Conf  :  3.837

FRAME  X      Y      W      H
000132 0.457  0.208  0.134  0.239
"""

from pathlib import Path

from triptych.config import UserError

_FIELDS = {"Reference": "reference", "Offset": "offset", "FV Conf": "fv_conf", "ASD Conf": "asd_conf"}
_HEADER_BYTES = 1024
"""The header has some 120."""


def read_header(path: Path) -> dict[str, str]:
    """What the lines above the frames say.

    Returns:
        reference (the YouTube id), offset (of the sound, in frames), fv_conf (that it is this person), asd_conf (that
        the face is the speaker's), as written, as far as the file has them.

    Raises:
        UserError: the file cannot be read or is no face track.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise UserError(f"{path}: the face track cannot be read: {error.strerror}") from None
    header, frames, _ = text.partition("\nFRAME")
    lines = (line.partition(":") for line in header.splitlines())
    said = {name.strip(): value.split() for name, _, value in lines}
    # "20.500 (1)": what the number in brackets counts is documented nowhere
    found = {field: said[name][0] for name, field in _FIELDS.items() if said.get(name)}
    if not frames or "reference" not in found:
        raise UserError(
            f"{path}: no face track of VoxCeleb2; expected 'Reference : <video>' and more above 'FRAME X Y W H'"
        )
    return found
