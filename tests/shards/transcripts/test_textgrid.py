import codecs
from pathlib import Path

import pytest

from shards.record import Word
from shards.transcripts.textgrid import read
from shards.transcripts.transcript import IMPOSSIBLE, SEVERAL
from triptych.config import UserError

SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
3
"IntervalTier"
"phones"
0
2.5
1
0
2.5
"word"
"TextTier"
"pitch"
0
2.5
1
1.5
"120"
"IntervalTier"
"words"
0
2.5
5
0
0.5
""
0.5
1
"say"
1
1.25
"<sil>"
1.25
2
" ""naïve"" "
2
2.5
"spn"
"""
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "word"
    item [2]:
        class = "TextTier"
        name = "pitch"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1.5
            mark = "120"
    item [3]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5 ! "of" 3 things
        intervals: size = 5
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1
            text = "say"
        intervals [3]:
            xmin = 1
            xmax = 1.25
            text = "<sil>"
        intervals [4]:
            xmin = 1.25
            xmax = 2
            text = " ""naïve"" "
        intervals [5]:
            xmin = 2
            xmax = 2.5
            text = "spn"
"""


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "clip.TextGrid"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("form", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    "encode",
    [
        str.encode,
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16 little", "utf-16 big", "windows lines"],
)
def test_both_forms_say_the_same_in_every_encoding(tmp_path: Path, form: str, encode) -> None:
    said = read(written(tmp_path, encode(form)), None)

    assert said.words == (Word("say", 0.5, 1.0), Word('"naïve"', 1.25, 2.0))
    assert sorted(said.counted.values()) == [1, 2]  # an empty label, and <sil> and spn


@pytest.mark.parametrize("name", ["word", "Words", "Mary - words"])
def test_names_that_aligners_give_the_tier(tmp_path: Path, name: str) -> None:
    assert len(read(written(tmp_path, SHORT.replace('"words"', f'"{name}"')), None).words) == 2


def test_the_tier_can_be_chosen(tmp_path: Path) -> None:
    assert read(written(tmp_path, SHORT), "Phones").words == (Word("word", 0.0, 2.5),)


@pytest.mark.parametrize(
    ("old", "new", "tier", "said"),
    [
        ('"words"', '"text"', None, "no interval tier is named word or words; it has 'phones', 'text'.*words_tier"),
        ('"phones"', '"A - words"', None, "2 interval tiers are named word or words"),
        ("", "", "pitch", "no interval tier is named 'pitch'"),
    ],
)
def test_a_tier_in_doubt_is_not_guessed(tmp_path: Path, old: str, new: str, tier: str | None, said: str) -> None:
    with pytest.raises(UserError, match=rf"clip\.TextGrid: {said}"):
        read(written(tmp_path, SHORT.replace(old, new, 1)), tier)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SHORT[: SHORT.index('"say"')], ":33: the file ends where the label of an interval should come"),
        (SHORT[: SHORT.index('ay"')], ":33: the file ends where the label"),
        (SHORT.replace("\n5\n0\n", "\n6\n0\n"), "the file ends where the start of an interval"),
        (SHORT.replace("\n5\n0\n", "\n4\n0\n"), ":40: 2 where the end of the file"),
        (SHORT.replace("\n0.5\n1\n", "\n0.5\nx\n"), ':33: "say" where the end of an interval'),
        (SHORT.replace("TextTier", "PointTier"), ':16: "PointTier" where "IntervalTier" or "TextTier"'),
        ("<html>", ":1: not a TextGrid"),
        ("", ":1: not a TextGrid"),
        (b"ooBinaryFile\x08TextGrid\x00", "a binary TextGrid; save it"),
        (SHORT.encode("latin-1"), "is not UTF-8 in line 39"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(UserError, match=rf"clip\.TextGrid.*{said}"):
        read(written(tmp_path, content), None)


def test_a_grid_without_tiers_has_no_words_tier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has none"):
        read(written(tmp_path, SHORT[: SHORT.index("<exists>")] + "<absent>\n"), None)


@pytest.mark.real
def test_files_of_other_programs(real_data: Path) -> None:
    mary = read(real_data / "textgrid" / "mary.TextGrid", None)
    cold = read(real_data / "textgrid" / "cold_corpus.TextGrid", None)

    assert [word.text for word in mary.words] == ["mary", "rolled", "the", "barrel"]
    assert mary.words[0].start_s == pytest.approx(0.31542, abs=1e-5)
    assert mary.words[-1].end_s == pytest.approx(1.51825, abs=1e-5)
    assert [word.text for word in cold.words[:6]] == ["uh", "so", "this", "is", "the", "sick"]
    assert len(cold.words) + sum(cold.counted.values()) == 95
    assert all(first.end_s <= second.start_s for first, second in zip(cold.words, cold.words[1:]))


def test_one_odd_word_does_not_cost_the_others(tmp_path: Path) -> None:
    for odd, kind in (
        (SHORT.replace('"say"', '"say it"'), SEVERAL),
        (SHORT.replace("0.5\n1\n", "1.5\n1\n"), IMPOSSIBLE),
    ):
        said = read(written(tmp_path, odd), None)
        assert [word.text for word in said.words] == ['"naïve"']
        assert said.counted[kind] == 1


def test_rounding_before_zero_is_zero(tmp_path: Path) -> None:
    said = read(written(tmp_path, SHORT.replace("0.5\n1\n", "-1.1102230246251565e-16\n1\n")), None)
    assert said.words[0] == Word("say", 0.0, 1.0)
