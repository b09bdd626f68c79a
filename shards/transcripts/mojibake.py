"""Mends letters that were decoded with the wrong table, where there is no doubt what they were."""

import re

_DOUBLE = re.compile(r"â€[\x80-\xff€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|[ÂÃ][\xa0-\xbf]")
"""UTF-8 read as Windows-1252: quotes, dashes and dots (three letters), and Western letters and signs (two). Other such
pairs exist, but could be a capital letter before a quote or three dots, as in CAFÉ…"""
_CONTROL = re.compile(r"[\x80-\x9f]")
"""Windows-1252 read as Latin-1: no text has these control characters."""


def mend(text: str) -> str:
    """The text with what is certainly mojibake put right; everything else, and every other letter, stays.

    `youâ€™re` and `you\\x92re` become `you’re`; five codes mean nothing in Windows-1252 and are left as they are.
    """
    return _CONTROL.sub(_from_control, _DOUBLE.sub(_from_double, text))


def _from_double(found: re.Match[str]) -> str:
    try:
        return bytes(_code(letter) for letter in found[0]).decode()
    except UnicodeError:
        return found[0]


def _from_control(found: re.Match[str]) -> str:
    try:
        return found[0].encode("latin-1").decode("cp1252")
    except UnicodeError:
        return found[0]


def _code(letter: str) -> int:
    """The byte that Windows-1252 shows as this letter; the five unassigned ones are shown as control characters."""
    return ord(letter) if ord(letter) < 256 else letter.encode("cp1252")[0]
