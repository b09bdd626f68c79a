from pathlib import Path

import pytest

from shards.corpora.ravdess import RavdessConfig
from triptych.config import UserError


def test_the_name_tells_everything(tmp_path: Path) -> None:
    (tmp_path / "Actor_12").mkdir()
    (tmp_path / "Actor_12" / "01-01-05-02-02-01-12.mp4").touch()
    (tmp_path / "03-02-01-01-01-02-07.wav").touch()
    (tmp_path / "words.ctm").write_text("01-01-05-02-02-01-12 1 0.5 0.2 dogs\n")

    angry, song = RavdessConfig(root=str(tmp_path), transcripts=["words.ctm"]).clips()

    assert angry.key == "01-01-05-02-02-01-12"
    assert angry.speaker == "actor-12"
    assert angry.labels == {"emotion": "angry", "intensity": "strong"}
    assert angry.source == {"modality": "av", "channel": "speech", "statement": "02", "repetition": "01"}
    assert angry.video is not None
    assert angry.audio is None
    assert angry.words is not None
    assert angry.words[0].text == "dogs"
    assert song.source["modality"] == "audio"
    assert song.source["channel"] == "song"
    assert song.audio is not None
    assert song.video is None


@pytest.mark.parametrize("name", ["holiday.mp4", "01-01-09-01-01-01-01.mp4", "01-01-05-01-02-01.wav"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    with pytest.raises(UserError, match=rf"{name}: not a RAVDESS name"):
        list(RavdessConfig(root=str(tmp_path)).clips())


def test_a_clip_found_twice_and_an_empty_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clip; looked for"):
        list(RavdessConfig(root=str(tmp_path)).clips())
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "03-01-01-01-01-01-01.wav").touch()
    with pytest.raises(UserError, match="is also at"):
        list(RavdessConfig(root=str(tmp_path)).clips())


def test_landmarks_are_those_of_the_recording(tmp_path: Path) -> None:
    """The published files are named like the av clips; the video clips show the same."""
    for name in ("clips/01-01-05-02-02-01-12.mp4", "clips/02-01-05-02-02-01-12.mp4", "clips/03-01-05-02-02-01-12.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tracking").mkdir()
    tracked = tmp_path / "tracking" / "01-01-05-02-02-01-12.csv"
    tracked.touch()

    clips = {clip.key[:2]: clip for clip in RavdessConfig(root=str(tmp_path), landmarks="tracking").clips()}

    assert clips["01"].attachments == clips["02"].attachments == {"landmarks.csv": tracked}
    assert clips["03"].attachments == {}
