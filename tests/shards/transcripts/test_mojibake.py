import pytest

from shards.transcripts.mojibake import mend


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("youâ€™re", "you’re"),
        ("â€œnoâ€\x9dâ€¦", "“no”…"),
        ("youâ€™re, Iâ€™m and they’re", "you’re, I’m and they’re"),
        ("Paulâ€™s CafÃ©, AdiÃ³s", "Paul’s Café, Adiós"),
        ("you\x92re \x93here\x94\x85", "you’re “here”…"),
    ],
)
def test_text_decoded_with_the_wrong_table_is_put_right(found: str, meant: str) -> None:
    assert mend(found) == meant


@pytest.mark.parametrize("text", ["CAFÉ…", "NÃO", "‘Â’", "â€", "Ã la", "\x81\x8d", "your company’s “plan”—"])
def test_what_may_be_meant_stays(text: str) -> None:
    assert mend(text) == text
