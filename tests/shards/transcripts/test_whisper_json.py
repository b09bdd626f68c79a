import json
from pathlib import Path
from typing import Any

import pytest

from shards.record import Word
from shards.transcripts.transcript import EARLY, IMPOSSIBLE, MARKS, SEVERAL, UNSURE
from shards.transcripts.whisper_json import PLACED, UNPLACED, read
from triptych.config import UserError


def written(folder: Path, content: Any) -> Path:
    path = folder / "clip.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def segments(*words: dict[str, Any]) -> dict[str, Any]:
    return {"segments": [{"start": 0.0, "end": 9.0, "text": "...", "words": list(words)}], "language": "en"}


def timed(text: str, start_s: float, end_s: float, **more: Any) -> dict[str, Any]:
    return {"word": text, "start": start_s, "end": end_s, **more}


def test_whisper_and_whisperx_name_the_confidence_differently(tmp_path: Path) -> None:
    for words, expected in (
        ([timed(" Hello", 0.5, 0.9, probability=0.75)], Word("Hello", 0.5, 0.9, 0.75)),
        ([timed("you", 1.0, 1.2, score=0.5)], Word("you", 1.0, 1.2, 0.5)),
        ([{"text": "you", "start": 1.0, "end": 1.2, "confidence": 0.5}], Word("you", 1.0, 1.2, 0.5)),
    ):
        said = read(written(tmp_path, segments(*words)))
        assert said.words == (expected,)
        assert said.language == "en"
        assert not said.counted


def test_a_clip_in_which_nothing_is_said(tmp_path: Path) -> None:
    said = read(written(tmp_path, {"text": "", "segments": [], "language": "nn"}))
    assert (said.words, said.language) == ((), "nn")


@pytest.mark.parametrize(
    ("heard", "word"),
    [
        (" Hello,", "Hello"),
        ("“Naïve!”", "Naïve"),
        (" don't.", "don't"),
        ("--well-known...", "well-known"),
        ("3.5%,", "3.5%"),
        ("$5", "$5"),
        ("♪♪", None),
        (" -", None),
        ("[Music]", None),
    ],
)
def test_punctuation_around_a_word_is_stripped(tmp_path: Path, heard: str, word: str | None) -> None:
    said = read(written(tmp_path, segments(timed(heard, 0.1, 0.2))))
    assert [found.text for found in said.words] == ([] if word is None else [word])
    assert said.counted == ({MARKS: 1} if word is None else {})


def test_words_without_times_share_the_gap_between_their_neighbours(tmp_path: Path) -> None:
    in_two_segments = {
        "segments": [
            {"text": "in 20", "words": [timed("in", 0.2, 0.4, score=0.9), {"word": "20"}]},
            {"text": "24 we", "words": [{"word": "24", "start": None}, timed("we", 1.0, 1.2, score=0.9)]},
        ]
    }

    said = read(written(tmp_path, in_two_segments))

    assert said.words[1:3] == (Word("20", 0.4, 0.7), Word("24", 0.7, 1.0))
    assert said.words[1].confidence is None
    assert said.counted == {PLACED: 2}


@pytest.mark.parametrize(
    "words",
    [
        [{"word": "5"}, timed("men", 0.5, 0.9)],
        [timed("men", 0.5, 0.9), {"word": "5"}],
        [timed("four", 0.5, 0.9), {"word": "5"}, timed("men", 0.9, 1.3)],
        [timed("four", 0.5, 0.9), {"word": "5"}, timed("men", 7.0, 7.3)],
        [{"word": "5"}],
    ],
    ids=["first", "last", "no gap", "a pause", "alone"],
)
def test_a_word_without_times_and_without_a_fitting_gap_is_left_out_and_counted(
    tmp_path: Path, words: list[dict[str, Any]]
) -> None:
    said = read(written(tmp_path, segments(*words)))
    assert [word.text for word in said.words] == [word["word"] for word in words if "start" in word]
    assert said.counted == {UNPLACED: 1}


def test_a_segment_that_could_not_be_aligned_is_counted(tmp_path: Path) -> None:
    said = read(written(tmp_path, {"segments": [{"text": " 3, 2, 1", "words": []}]}))
    assert (said.words, said.counted) == ((), {UNPLACED: 3})


def test_nan_is_no_time_and_no_confidence(tmp_path: Path) -> None:
    """Older WhisperX writes it for words that it cannot align."""
    nan = float("nan")
    said = read(written(tmp_path, segments(timed("a", nan, nan, score=nan), timed("b", 0.1, 0.2, score=nan))))
    assert said.words == (Word("b", 0.1, 0.2),)
    assert said.counted == {UNPLACED: 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"segments":\n[', r":2: not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON"),
        ([], "no 'segments'"),
        ({"text": "hello"}, "no 'segments'.*openai-whisper or WhisperX"),
        ({"segments": [{"text": "hello", "start": 0, "end": 1}]}, r"segments\[0\] has no 'words'.*word_timestamps"),
        (segments({"name": "hello"}), r"segments\[0\]\.words\[0\]: no 'word'"),
        (segments(timed("a", 0, 1), timed("b", "0", 1)), r"words\[1\]: start is '0'; expected a number"),
        (segments(timed("b", 1.0, 0.5)), "'b' from 1 s to 0.5 s"),
        (segments(timed("b", 0.1, 10**400)), "'b' from 0.1 s to inf s"),
        (segments(timed("two words", 0.1, 0.5)), "'two words' are several words"),
        ({"segments": [], "language": 1}, "language is 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"clip\.json.*{message}"):
        read(written(tmp_path, content))


def pieces(*texts: str) -> dict[str, Any]:
    """Words of 0.2 s, one after the other, less and less sure."""
    return segments(
        *(timed(text, place / 5, (place + 1) / 5, probability=0.9 - place / 100) for place, text in enumerate(texts))
    )


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (" I| paid| $43|,000| for| a| two|-year|-old| U|.S|.| car| at| 3|.5| %",
         "I paid $43,000 for a two-year-old U.S car at 3.5 %"),
        (" C|'est| aujourd|'hui| qu|'il| vient|,| dit|-il|.", "C'est aujourd'hui qu'il vient dit-il"),
        ("I|paid|$43|,000", "I paid $43 000"),  # no blanks in the file: WhisperX, whose entries are words
        (" it|'s| (|well|)| fine|!", "it's well fine"),
        (" [noise]| so|me", "some"),
        (" hello|你|好", "hello 你 好"),
        (" un|believ|able", "unbelievable"),
        (" oui\u00a0!| fin", "oui fin"),
    ],
)  # fmt: skip
def test_a_piece_without_a_blank_belongs_to_the_word_before(tmp_path: Path, heard: str, words: str) -> None:
    said = read(written(tmp_path, pieces(*heard.split("|"))))
    assert [word.text for word in said.words] == words.split()


def test_a_joined_word_has_the_first_start_the_last_end_and_the_least_confidence(tmp_path: Path) -> None:
    said = read(written(tmp_path, pieces(" two", "-year", "-old", ".", " car")))
    assert said.words == (Word("two-year-old", 0.0, 0.6, 0.9 - 0.02), Word("car", 0.8, 1.0, 0.9 - 0.04))


def test_pieces_without_times_leave_those_of_the_word(tmp_path: Path) -> None:
    said = read(written(tmp_path, segments(timed(" two", 0.1, 0.3), {"word": "-fold"}, timed(" so", 0.5, 0.7))))
    assert said.words == (Word("two-fold", 0.1, 0.3), Word("so", 0.5, 0.7))


def test_the_form_of_the_api(tmp_path: Path) -> None:
    content = {"task": "transcribe", "language": "english", "text": "Hi you.", "segments": [{"text": "Hi you."}]}
    content["words"] = [{"word": "Hi", "start": 0.1, "end": 0.3}, {"word": "you.", "start": 0.4, "end": 0.6}]
    said = read(written(tmp_path, content))
    assert (said.words, said.language) == ((Word("Hi", 0.1, 0.3), Word("you", 0.4, 0.6)), "english")


def test_the_form_of_transformers(tmp_path: Path) -> None:
    chunks = [
        (" I", [0.1, 0.2]),
        (" said", [0.3, None]),
        (" so", [0.7, 0.9]),
        (" long", [1.0, None]),
        (" ago", [9.0, None]),
    ]
    content = {"text": "", "chunks": [{"text": text, "timestamp": times} for text, times in chunks]}
    said = read(written(tmp_path, content))
    assert [(word.text, word.start_s, word.end_s) for word in said.words] == [
        ("I", 0.1, 0.2), ("said", 0.3, 0.7), ("so", 0.7, 0.9), ("long", 1.0, 3.0), ("ago", 9.0, 9.4),
    ]  # fmt: skip
    sentence = {"chunks": [{"text": " I said so", "timestamp": [0.1, 2.0]}]}
    with pytest.raises(UserError, match=r"chunks\[0\]: 'I said so' are several words"):
        read(written(tmp_path, sentence))


def test_one_odd_word_does_not_cost_the_others(tmp_path: Path) -> None:
    good = [timed(" hello", 0.1, 0.4, probability=0.9), timed(" there", 0.5, 0.8, probability=0.9)]
    for odd, kind, kept in (
        (timed(" 20\u202f000", 0.9, 1.5), None, "20\u202f000"),
        (timed(" oh", 1.5, 1.2), IMPOSSIBLE, None),
        (timed(" oh", -0.02, 0.1), EARLY, "oh"),
        (timed(" oh", 1.5, 1.4999999), None, "oh"),
        (timed(" New York", 0.9, 1.5), SEVERAL, None),
        (timed(" oh", 0.9, 1.0, probability=float("-inf")), UNSURE, "oh"),
        (timed(" oh", 0.9, 10**400), IMPOSSIBLE, None),
    ):
        said = read(written(tmp_path, segments(*good, odd)))
        assert sorted(word.text for word in said.words) == sorted(["hello", "there", *filter(None, [kept])])
        assert said.counted == ({} if kind is None else {kind: 1})
        assert all(word.start_s >= 0 for word in said.words)


def test_a_segment_without_words_among_others_is_counted(tmp_path: Path) -> None:
    content = segments(timed(" hello", 0.1, 0.4))
    content["segments"].append({"text": " Thank you."})
    said = read(written(tmp_path, content))
    assert ([word.text for word in said.words], said.counted) == (["hello"], {UNPLACED: 2})


def test_a_no_break_blank_begins_no_word(tmp_path: Path) -> None:
    said = read(written(tmp_path, pieces(" 20", "\u202f000", "\u202f€", " oui", "\u00a0!")))
    assert [word.text for word in said.words] == ["20\u202f000\u202f€", "oui"]


def test_a_segment_begins_with_a_word_and_letters_join_only_what_they_follow_at_once(tmp_path: Path) -> None:
    first = {"words": [timed(" so", 0.1, 0.3), timed("far", 0.5, 0.6)]}
    second = {"words": [timed("-yes", 0.6, 0.9)]}
    said = read(written(tmp_path, {"segments": [first, second]}))
    assert [word.text for word in said.words] == ["so", "far", "yes"]
