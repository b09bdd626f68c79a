"""Which clip gets the words of which file. CTM files are in tests/shards/corpora/test_voxceleb2.py."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.corpora.voxceleb2 import VoxCeleb2Config
from shards.record import RawClip, Word
from shards.transcripts.attach import attach
from shards.transcripts.kaldi_ctm import read as read_ctm
from triptych.config import UserError

KEYS = ("id1/v1/00001", "id1/v1/00002", "id2/v2/00001")
CLIPS = [RawClip(key=key, speaker=key.split("/")[0], duration_s=1.0, source={"set": "dev"}) for key in KEYS]


def whisper(words: tuple[Word, ...]) -> str:
    fields = [
        {"word": f" {word.text},", "start": word.start_s, "end": word.end_s, "probability": word.confidence}
        for word in words
    ]
    return json.dumps({"language": "en", "segments": [{"text": "", "words": fields}] if fields else []})


def short_textgrid(words: tuple[Word, ...]) -> str:
    body = "".join(f'{word.start_s}\n{word.end_s}\n"{word.text}"\n' for word in words)
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n9\n<exists>\n1\n'
    return f'{head}"IntervalTier"\n"words"\n0\n9\n{len(words)}\n{body}'


def long_textgrid(words: tuple[Word, ...]) -> str:
    body = "".join(
        f"        intervals [{number}]:\n            xmin = {word.start_s}\n            xmax = {word.end_s}\n"
        f'            text = "{word.text}"\n'
        for number, word in enumerate(words, start=1)
    )
    return (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 9\n'
        "tiers? <exists>\nsize = 1\nitem []:\n"
        '    item [1]:\n        class = "IntervalTier"\n        name = "words"\n        xmin = 0\n        xmax = 9\n'
        f"        intervals: size = {len(words)}\n{body}"
    )


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def words_of(clips: list[RawClip]) -> list[str | None]:
    return [None if clip.words is None else " ".join(word.text for word in clip.words) for clip in clips]


@pytest.mark.parametrize("name", ["id1/v1/00001", "id1-v1-00001", "dev/id1/v1/00001", "by_hand/id1-v1-00001"])
@pytest.mark.parametrize("ending", [".TextGrid", ".textgrid", ".json"])
def test_a_file_belongs_to_the_clip_that_its_path_ends_with(tmp_path: Path, name: str, ending: str) -> None:
    words = (Word("hello", 0.1, 0.4, 0.5),)
    put(tmp_path / "words" / f"{name}{ending}", whisper(words) if ending == ".json" else short_textgrid(words))
    put(tmp_path / "words" / "alignment_analysis.csv", "file,begin,end\n")

    clips = attach(CLIPS, ["words"], tmp_path, allow_unknown=False)

    assert words_of(clips) == ["hello", None, None]


def test_formats_can_stand_side_by_side_and_only_whisper_tells_the_language(tmp_path: Path) -> None:
    put(tmp_path / "words" / "id1-v1-00001.json", whisper((Word("hello", 0.1, 0.4, 0.5),)))
    put(tmp_path / "words" / "id1-v1-00002.TextGrid", short_textgrid((Word("red", 0.1, 0.4),)))
    put(tmp_path / "late.ctm", "id2/v2/00001 1 0.1 0.3 blue\n")

    clips = attach(CLIPS, ["words", "late.ctm"], tmp_path, allow_unknown=False)

    assert words_of(clips) == ["hello", "red", "blue"]
    assert [clip.source.get("language") for clip in clips] == ["en", None, None]
    assert clips[0].source["set"] == "dev"


def test_one_file_can_be_given_by_its_name(tmp_path: Path) -> None:
    put(tmp_path / "id1-v1-00001.json", whisper((Word("hello", 0.1, 0.4, 0.5),)))
    assert words_of(attach(CLIPS, [str(tmp_path / "id1-v1-00001.json")], Path("no"), allow_unknown=False))[0] == "hello"


def test_files_of_other_clips_are_refused_or_left_out(tmp_path: Path) -> None:
    for name in ("id1/v1/00001", "id1/v9/00001"):
        put(tmp_path / "words" / f"{name}.TextGrid", short_textgrid((Word("hello", 0.1, 0.4),)))

    with pytest.raises(UserError, match=r"words: 1 of 2 utterances are no clip.*first: id1/v9/00001"):
        attach(CLIPS, ["words"], tmp_path, allow_unknown=False)
    assert words_of(attach(CLIPS, ["words"], tmp_path, allow_unknown=True)) == ["hello", None, None]


def test_a_clip_with_two_files_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "words" / "id1-v1-00001.TextGrid", short_textgrid((Word("hello", 0.1, 0.4),)))
    put(tmp_path / "words" / "id1" / "v1" / "00001.json", whisper((Word("hello", 0.1, 0.4, 0.5),)))

    with pytest.raises(
        UserError, match=r"1 utterances are in an earlier transcript too, first: .*00001\.(json|TextGrid)"
    ):
        attach(CLIPS, ["words"], tmp_path, allow_unknown=False)


def test_all_bad_files_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    put(tmp_path / "words" / "id1-v1-00001.TextGrid", "")
    put(tmp_path / "words" / "id1-v1-00002.json", "{")
    put(tmp_path / "words" / "id2-v2-00001.json", whisper((Word("hello", 0.1, 0.4, 0.5),)))

    with pytest.raises(
        UserError, match=r"2 of 3 transcripts cannot be read.*00001\.TextGrid:1: .*00002\.json:1: not J"
    ):
        attach(CLIPS, ["words"], tmp_path, allow_unknown=False)


def test_one_bad_file_costs_its_clip_alone_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "words" / "id1-v1-00001.TextGrid", "")
    put(tmp_path / "words" / "id1-v1-00002.json", whisper((Word("hello", 0.1, 0.4, 0.5),)))
    put(tmp_path / "words.ctm", "id2/v2/00001 1 0.1 0.3 blue\n")
    put(tmp_path / "words" / "id1-v9-00001.json", whisper(()))

    clips = attach(CLIPS, ["words", "words.ctm"], tmp_path, allow_unknown=True)

    assert words_of(clips)[1:] == ["hello", "blue"]
    assert [clip.unusable for clip in clips[1:]] == [None, None]
    assert re.fullmatch(r"transcript: .*00001\.TextGrid:1: not a TextGrid.*", str(clips[0].unusable))
    assert "has 1 transcripts that cannot be read; their clips are quarantined" in caplog.text


def test_a_bad_line_of_a_ctm_costs_its_clip_alone(tmp_path: Path) -> None:
    put(tmp_path / "a.ctm", "".join(f"{key} 1 0.1 0.3 blue\n" for key in KEYS) + f"{KEYS[1]} 1 0.4 0.1 New York 0.5\n")

    clips = attach(CLIPS, ["a.ctm"], tmp_path, allow_unknown=False)

    assert [clip.unusable is None for clip in clips] == [True, False, True]
    assert "a.ctm:4: 7 fields" in str(clips[1].unusable)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words.TextGird", r"no transcript by its ending\. Did you mean \.textgrid\? There are \.ctm, "),
        ("words.srt", r"words\.srt: no transcript by its ending"),
        ("words.ctm", "there is no such file"),
        ("empty", r"empty: no transcript in this folder; looked for \.ctm: Kaldi CTM"),
    ],
)
def test_a_path_without_transcripts_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        attach(CLIPS, [name], tmp_path, allow_unknown=False)


def test_what_became_no_word_is_told_with_its_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for clip in CLIPS:
        words = (Word("hello", 0.1, 0.4), Word("<sil>", 0.4, 0.6), Word("", 0.6, 0.8))
        put(tmp_path / "words" / f"{clip.key}.TextGrid", short_textgrid(words))

    with caplog.at_level(logging.WARNING):
        attach(CLIPS, ["words"], tmp_path, allow_unknown=False)

    assert "has 3 empty labels" in caplog.text
    assert "has 3 marks like <sil>" in caplog.text


@pytest.mark.real
@pytest.mark.parametrize(
    ("form", "ending"), [(short_textgrid, ".TextGrid"), (long_textgrid, ".TextGrid"), (whisper, ".json")]
)
def test_grid_says_the_same_in_every_form(
    real_data: Path, tmp_path: Path, form: Callable[[tuple[Word, ...]], str], ending: str
) -> None:
    root = real_data / "grid_vox2"
    for key, said in read_ctm(root / "transcripts.ctm").items():
        put(tmp_path / "words" / f"{key}{ending}", form(said.words))

    wanted = list(VoxCeleb2Config(root=str(root), transcripts=["transcripts.ctm"]).clips())
    found = list(VoxCeleb2Config(root=str(root), transcripts=[str(tmp_path / "words")]).clips())

    times = [[(word.text, word.start_s, word.end_s) for word in clip.words or ()] for clip in found]
    assert times == [[(word.text, word.start_s, word.end_s) for word in clip.words or ()] for clip in wanted]
    assert sum(map(len, times)) == 4200
    if form is whisper:
        assert [clip.words for clip in found] == [clip.words for clip in wanted]
        assert {clip.source["language"] for clip in found} == {"en"}
