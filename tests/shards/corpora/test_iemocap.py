"""IEMOCAP: labels, votes, words and media of an utterance, and what is wrong with the release."""

import io
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from shards.corpora.config import CorpusConfig
from shards.corpora.iemocap import PUBLISHED_EMOTIONS, IemocapConfig
from shards.corpora.iemocap_evaluation import read
from shards.divisions.split import SplitConfig
from shards.features.config import AudioFeature, FeaturesConfig, build
from shards.features.lfbe import LfbeConfig
from shards.look_alike import make
from shards.reading.index import ShardSet
from shards.reading.read import EvalLoader
from shards.record import Cut, RawClip
from shards.write import WriteConfig, write
from triptych.config import UserError

MISSING = "Session2/sentences/wav/Ses02M_script01_1/Ses02M_script01_1_F001.wav is missing"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iemocap") / "raw"
    make("iemocap", folder)
    return folder


def clips(root: Path, **settings: bool) -> dict[str, RawClip]:
    return {clip.key: clip for clip in IemocapConfig(root=str(root), **settings).clips()}


def test_the_published_counts_agree_with_each_other() -> None:
    assert sum(PUBLISHED_EMOTIONS.values()) == 10_039
    assert sum(PUBLISHED_EMOTIONS[name] for name in ("angry", "happy", "excited", "neutral", "sad")) == 5531


def test_every_labelled_utterance_is_a_clip(release: Path) -> None:
    found = clips(release)

    assert len(found) == 28
    assert Counter(clip.speaker for clip in found.values()) == {
        "Ses01F": 4,
        "Ses01M": 4,
        "Ses02F": 4,
        "Ses02M": 4,
        "Ses03F": 2,
        "Ses03M": 2,
        "Ses04F": 2,
        "Ses04M": 2,
        "Ses05F": 2,
        "Ses05M": 2,
    }
    assert Counter(clip.labels["emotion"] for clip in found.values()) == {
        "neutral": 7,
        "happy": 6,
        "sad": 7,
        "angry": 6,
        "undecided": 1,
        "excited": 1,
    }
    assert Counter(clip.source["style"] for clip in found.values()) == {"improvised": 16, "scripted": 12}


def test_labels_votes_and_source_of_an_utterance(release: Path) -> None:
    clip = clips(release)["Ses02M_script01_1_F000"]

    assert clip.labels == {"emotion": "angry", "valence": 1.0, "activation": 4.5, "dominance": 5.0}
    assert clip.source == {
        "session": "Ses02",
        "dialogue": "Ses02M_script01_1",
        "video": "Ses02M_script01_1",
        "scenario": "script01_1",
        "style": "scripted",
        "gender": "f",
        "markers": "no",
        "votes": "E2:angry E4:angry+frustrated F1:neutral",
        "ratings": "E3:1/4/5 E4:1/4/-",
    }


def test_words_have_the_times_of_the_alignment_or_are_spread(release: Path) -> None:
    found = clips(release)
    spread = {key for key, clip in found.items() if clip.source.get("word_times") == "spread"}
    assert spread == {"Ses01M_script01_1_M000"}
    guessed = found["Ses01M_script01_1_M000"]
    assert guessed.words is not None
    assert (guessed.words[0].start_s, guessed.words[-1].end_s) == (0.0, 2.96)  # the utterance lasts so long
    aligned = found["Ses01F_impro01_F000"].words
    assert aligned is not None
    assert (aligned[0].text, aligned[0].start_s, aligned[0].end_s) == ("Common", 0.19, 0.47)
    words = [clip.words for clip in found.values() if clip.words]
    assert not any(set(word.text) & set("+<([") for said in words for word in said)
    assert all((said[0].text[0].isupper(), said[-1].text[-1]) == (True, ".") for said in words)  # as it is transcribed


def test_the_picture_is_the_speakers_half_beside_the_wav_of_the_sentence(release: Path) -> None:
    """Who wears the markers, told by the session's letter, is on the left."""
    found = clips(release)
    dialog = release / "Session1" / "dialog"
    left, right = (0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75)

    clip = found["Ses01M_script01_1_M000"]

    assert clip.video == dialog / "avi" / "DivX" / "Ses01M_script01_1.avi"
    sentences = release / "Session1" / "sentences" / "wav" / "Ses01M_script01_1"
    assert clip.audio == sentences / "Ses01M_script01_1_M000.wav"
    assert clip.cut == Cut(start_s=1.72, end_s=4.68, box=left, sound=False)
    boxes = {clip.key[:6] + clip.key[-4]: clip.cut.box for clip in found.values() if clip.cut is not None}
    assert boxes == {
        "Ses01FF": left,
        "Ses01FM": right,
        "Ses01MM": left,
        "Ses01MF": right,
        "Ses02FF": left,
        "Ses02FM": right,
        "Ses02MM": left,
        "Ses02MF": right,
        "Ses03FF": left,
        "Ses03FM": right,
        "Ses04MM": left,
        "Ses04MF": right,
        "Ses05FF": left,
        "Ses05FM": right,
    }


def test_sound_alone_is_the_sentence_uncut_and_a_missing_one_is_unusable(
    release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = clips(release, picture=False)

    clip = found["Ses01F_impro01_M001"]
    wavs = release / "Session1" / "sentences" / "wav"
    assert (clip.video, clip.cut, clip.audio) == (None, None, wavs / "Ses01F_impro01" / "Ses01F_impro01_M001.wav")
    assert {key: clip.unusable for key, clip in found.items() if clip.unusable} == {"Ses02M_script01_1_F001": MISSING}
    assert f"1 clips cannot be used: {MISSING}" in caplog.text


def test_labels_and_words_without_media(release: Path, tmp_path: Path) -> None:
    for session in ("Session1", "Session2", "Session3", "Session4", "Session5"):
        for kind in ("EmoEvaluation", "transcriptions"):
            shutil.copytree(release / session / "dialog" / kind, tmp_path / session / "dialog" / kind)

    found = clips(tmp_path, media=False)

    assert len(found) == 28
    assert not any(clip.video or clip.audio or clip.cut or clip.unusable for clip in found.values())
    assert found["Ses01F_impro01_F000"].duration_s == pytest.approx(2.88)
    assert all(clip.words for clip in found.values())
    assert {clip.unusable for clip in clips(tmp_path, picture=False).values()} != {None}


def test_counts_are_told_beside_the_published_ones(release: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        clips(release)

    assert "28 of the 10039 published: undecided 1 of 2507" in caplog.text
    assert "Ses01 8, Ses02 8, " in caplog.text
    assert "27 aligned, 1 spread; 7 transcribed utterances have no labels" in caplog.text


def test_a_bad_alignment_is_told_and_spread(release: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(release / "Session1", tmp_path / "Session1")
    aligned = tmp_path / "Session1" / "sentences" / "ForcedAlignment" / "Ses01F_impro01"
    (aligned / "Ses01F_impro01_F000.wdseg").write_text("SFrm EFrm SegAScr Word\nbroken\n")

    clip = clips(tmp_path)["Ses01F_impro01_F000"]

    assert clip.source["word_times"] == "spread"
    assert "Ses01F_impro01_F000.wdseg, line 2: 'broken'" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        "[0.0 - 1.0]\tSes01F_impro01_F000\tjoy\t[3.0, 2.5, 2.0]",
        "[0.0 - 1.0]\tSes01F_impro01_F000\tneu\t[3.0, 2.5]",
        "[0.0]\tSes01F_impro01_F000\tneu\t[3.0, 2.5, 2.0]",
    ],
)
def test_another_form_of_evaluation_is_refused_with_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "Ses01F_impro01.txt"
    path.write_text(f"% header\n\n{line}\n")

    with pytest.raises(UserError, match=r"Ses01F_impro01\.txt, line 3: .* expected"):
        list(read(path))


def test_other_names_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no session; expected the folders Session1 to Session5"):
        clips(tmp_path)
    evaluations = tmp_path / "Session1" / "dialog" / "EmoEvaluation"
    evaluations.mkdir(parents=True)
    with pytest.raises(UserError, match="no evaluation; expected files like"):
        clips(tmp_path)
    (evaluations / "Ses01F_impro01.txt").write_text("[0.0 - 1.0]\tSes01F_impro02_F000\tneu\t[3.0, 2.5, 2.0]\n")
    with pytest.raises(UserError, match="'Ses01F_impro02_F000' in the evaluation of Ses01F_impro01"):
        clips(tmp_path)


def shards(root: Path, out: Path, **settings: bool) -> ShardSet:
    corpus = CorpusConfig(iemocap=IemocapConfig(root=str(root), **settings))
    split = SplitConfig(by="protocol:iemocap/session_5fold/5")
    write(WriteConfig(corpus=corpus, out=str(out), split=split, workers=1, timeout_s=600.0, max_quarantined_share=0.1))
    return ShardSet(out)


def streamed(shard_set: ShardSet) -> dict[str, str]:
    """Key -> emotion, as batches bring it."""
    classes = tuple(PUBLISHED_EMOTIONS)
    loaders = [
        EvalLoader(
            shard_set,
            build(FeaturesConfig(audio=AudioFeature(lfbe=LfbeConfig(bands=8)))),
            vocabulary=None,
            batch_size=4,
            rank=0,
            world=1,
            split=split,
            labels={"emotion": classes},
        )
        for split in ("train", "valid", "test")
    ]
    batches = [batch for loader in loaders for batch in loader.batches()]
    return {
        key: classes[label] for batch in batches for key, label in zip(batch.keys, batch.labels["emotion"].tolist())
    }


def test_look_alike_sentences_to_batches(release: Path, tmp_path: Path) -> None:
    shard_set = shards(release, tmp_path / "shards", picture=False)

    manifest = shard_set.manifest
    assert (manifest.found, manifest.written) == (28, 27)
    assert manifest.quarantined == {"Ses02M_script01_1_F001": MISSING}
    arrived = streamed(shard_set)
    assert Counter(arrived.values()) == {
        "neutral": 7,
        "happy": 5,
        "sad": 7,
        "angry": 6,
        "undecided": 1,
        "excited": 1,
    }
    assert arrived["Ses01F_impro01_M001"] == "undecided"
    assert arrived["Ses02F_impro01_M001"] == "excited"
    assert arrived["Ses02M_script01_1_M001"] == "sad"


def test_look_alike_pictures_to_batches(release: Path, tmp_path: Path) -> None:
    """Who listens is grey and still in the look-alike: the half that was cut out shows who speaks."""
    shard_set = shards(release, tmp_path / "shards")

    manifest = shard_set.manifest
    assert (manifest.found, manifest.written, manifest.quarantined) == (28, 27, {"Ses02M_script01_1_F001": MISSING})
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 0
    assert len(streamed(shard_set)) == 27
    valid = shard_set.split("valid")
    sentences = release / "Session1" / "sentences" / "wav"
    sound = valid.read(valid.keys.index("Ses01F_impro01_M001"))["wav"]
    assert sound == (sentences / "Ses01F_impro01" / "Ses01F_impro01_M001.wav").read_bytes()
    clips_seen = 0
    for shard in manifest.shards:
        with tarfile.open(tmp_path / "shards" / shard.name) as tar:
            for member in tar:
                if not member.name.endswith(".mp4"):
                    continue
                content = tar.extractfile(member)
                assert content is not None
                with av.open(io.BytesIO(content.read())) as recording:
                    frames = np.stack([frame.to_ndarray(format="gray") for frame in recording.decode(video=0)])
                assert frames.shape[1:] == (64, 96)
                assert frames[:, :, 16:80].std() > 10
                assert 30 <= len(frames) <= 100
                clips_seen += 1
    assert clips_seen == 27


def test_look_alike_labels_and_words_to_shards(release: Path, tmp_path: Path) -> None:
    manifest = shards(release, tmp_path / "shards", media=False).manifest

    assert (manifest.found, manifest.written, manifest.quarantined) == (28, 28, {})
    assert manifest.counts["without_audio"] == manifest.counts["without_video"] == 28
    assert manifest.counts["without_words"] == 0
