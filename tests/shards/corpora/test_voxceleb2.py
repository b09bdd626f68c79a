from pathlib import Path

import pytest

from shards.corpora.voxceleb2 import VoxCeleb2Config
from triptych.config import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_layout_with_sets_and_separate_sound(tmp_path: Path) -> None:
    touch(tmp_path, "dev/mp4/id1/v-_1/00001.mp4", "dev/aac/id1/v-_1/00001.m4a", "test/mp4/id2/v2/00003.mp4")
    touch(tmp_path, "test/aac/id2/v2/00004.m4a", "dev/notes.txt")

    clips = {clip.key: clip for clip in VoxCeleb2Config(root=str(tmp_path)).clips()}

    assert list(clips) == ["id1/v-_1/00001", "id2/v2/00003", "id2/v2/00004"]
    first = clips["id1/v-_1/00001"]
    assert first.speaker == "id1"
    assert first.source == {"set": "dev", "video": "v-_1", "clip": "00001"}
    assert first.video == tmp_path / "dev/mp4/id1/v-_1/00001.mp4"
    assert first.audio == tmp_path / "dev/aac/id1/v-_1/00001.m4a"
    assert first.words is None
    assert clips["id2/v2/00003"].audio is None
    assert clips["id2/v2/00004"].video is None


def test_layout_without_sets(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4")

    (clip,) = VoxCeleb2Config(root=str(tmp_path)).clips()

    assert clip.key == "id1/v1/00001"


def test_metadata_with_the_original_blanks(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4", "mp4/id2/v1/00001.mp4")
    (tmp_path / "meta.csv").write_text("VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid1 ,n1 ,f ,dev \n")

    clips = list(VoxCeleb2Config(root=str(tmp_path), metadata="meta.csv").clips())

    assert [clip.source.get("gender") for clip in clips] == ["f", None]


@pytest.mark.parametrize("content", [b"", b"speaker,sex\nid1,f\n", bytes(range(256))])
def test_metadata_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4")
    (tmp_path / "meta.csv").write_bytes(content)

    with pytest.raises(UserError, match=r"meta\.csv: (expected a csv .* 'VoxCeleb2 ID' and 'Gender'|is not UTF-8)"):
        list(VoxCeleb2Config(root=str(tmp_path), metadata="meta.csv").clips())


@pytest.mark.parametrize("utterance", ["id1/v1/00001", "id1-v1-00001"])
def test_transcripts_find_their_clip(tmp_path: Path, utterance: str) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4", "mp4/id1/v1/00002.mp4")
    (tmp_path / "words.ctm").write_text(f"{utterance} 1 0.1 0.2 hello\n")

    clips = list(VoxCeleb2Config(root=str(tmp_path), transcripts=["words.ctm"]).clips())

    assert clips[0].words is not None
    assert [word.text for word in clips[0].words] == ["hello"]
    assert clips[1].words is None


def test_transcripts_of_other_clips_are_refused_or_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4")
    (tmp_path / "words.ctm").write_text("id1/v1/00001 1 0.1 0.2 hello\nid9/v1/00001 1 0.1 0.2 stray\n")

    with pytest.raises(UserError, match=r"words\.ctm: 1 of 2 utterances.*id9/v1/00001.*allow_unknown_transcripts"):
        list(VoxCeleb2Config(root=str(tmp_path), transcripts=["words.ctm"]).clips())

    config = VoxCeleb2Config(root=str(tmp_path), transcripts=["words.ctm"], allow_unknown_transcripts=True)
    assert [len(clip.words or ()) for clip in config.clips()] == [1]


def test_transcripts_that_give_no_word_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4")
    (tmp_path / "words.ctm").write_text("other 1 0.1 0.2 stray\n")
    config = VoxCeleb2Config(root=str(tmp_path), transcripts=["words.ctm"], allow_unknown_transcripts=True)

    with pytest.raises(UserError, match=r"no clip .* has a word.*named like id1/v1/00001"):
        list(config.clips())


def test_an_utterance_in_two_transcripts_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4")
    for name in ("a.ctm", "b.ctm"):
        (tmp_path / name).write_text("id1/v1/00001 1 0.1 0.2 hello\n")

    with pytest.raises(UserError, match=r"b\.ctm: 1 utterances are in an earlier transcript"):
        list(VoxCeleb2Config(root=str(tmp_path), transcripts=["a.ctm", "b.ctm"]).clips())


def test_an_empty_root_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no clip; looked for .*mp4/<speaker>"):
        list(VoxCeleb2Config(root=str(tmp_path)).clips())


def test_names_that_make_no_key_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/v.1/00001.mp4")

    with pytest.raises(UserError, match=r"00001\.mp4.*rename"):
        list(VoxCeleb2Config(root=str(tmp_path)).clips())


def test_one_clip_in_two_sets_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "dev/mp4/id1/v1/00001.mp4", "test/mp4/id1/v1/00001.mp4")

    with pytest.raises(UserError, match="is also at"):
        list(VoxCeleb2Config(root=str(tmp_path)).clips())


def test_landmarks_mirror_the_clips(tmp_path: Path) -> None:
    touch(tmp_path, "dev/mp4/id1/v1/00001.mp4", "dev/aac/id1/v1/00001.m4a", "test/mp4/id2/v1/00001.mp4")
    touch(tmp_path, "openface/id1/v1/00001.csv", "openface/test/id2/v1/00001.csv")

    for folder in ("openface", str(tmp_path / "openface")):
        clips = list(VoxCeleb2Config(root=str(tmp_path), landmarks=folder).clips())

        assert [clip.attachments["landmarks.csv"].relative_to(tmp_path / "openface") for clip in clips] == [
            Path("id1/v1/00001.csv"),
            Path("test/id2/v1/00001.csv"),
        ]


TRACK = """Identity  : \tid1
Reference : \tFRAME_0aB-9
Offset    : \t-3
FV Conf   : \t20.500\t(1)
ASD Conf  : \t3.837

FRAME \tX \tY \tW \tH
000132 \t0.457 \t0.208 \t0.134 \t0.239
"""


@pytest.mark.parametrize("folder", ["dev/txt", "txt"])
def test_face_tracks_tell_the_video_and_how_sure_they_are(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "dev/mp4/id1/v1/00001.mp4", "dev/mp4/id1/v1/00002.mp4", f"{folder}/id1/v1/00001.txt")
    (tmp_path / folder / "id1/v1/00001.txt").write_text(TRACK)

    with_track, without = VoxCeleb2Config(root=str(tmp_path), face_tracks=True).clips()

    assert with_track.attachments == {"track.txt": tmp_path / folder / "id1/v1/00001.txt"}
    said = {"reference": "FRAME_0aB-9", "offset": "-3", "fv_conf": "20.500", "asd_conf": "3.837"}
    assert with_track.source == {"set": "dev", "video": "v1", "clip": "00001", **said}
    assert without.attachments == {}
    assert without.source == {"set": "dev", "video": "v1", "clip": "00002"}
    assert all(clip.attachments == {} for clip in VoxCeleb2Config(root=str(tmp_path)).clips())


@pytest.mark.parametrize("content", [b"", b"a note\n", bytes(range(256)), TRACK.split("\n\n")[0].encode()])
def test_what_is_no_face_track_is_named(tmp_path: Path, content: bytes) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4", "txt/id1/v1/00001.txt")
    (tmp_path / "txt/id1/v1/00001.txt").write_bytes(content)

    with pytest.raises(UserError, match=r"00001\.txt: no face track of VoxCeleb2"):
        list(VoxCeleb2Config(root=str(tmp_path), face_tracks=True).clips())


def test_a_face_track_of_a_clip_in_two_places_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "mp4/id1/v1/00001.mp4", "txt/id1/v1/00001.txt", "dev/txt/id1/v1/00001.txt")

    with pytest.raises(UserError, match=r"the face track id1/v1/00001 is also at"):
        list(VoxCeleb2Config(root=str(tmp_path), face_tracks=True).clips())


def test_a_mirror_may_call_its_sets_anything_or_have_none(tmp_path: Path) -> None:
    touch(tmp_path, "part_a/mp4/id1/v1/00001.mp4", "aac/id1/v1/00001.m4a", "mp4/id2/v1/00001.mp4")

    clips = list(VoxCeleb2Config(root=str(tmp_path)).clips())

    assert [(clip.video is not None, clip.audio is not None) for clip in clips] == [(True, True), (True, False)]
