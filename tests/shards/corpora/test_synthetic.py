"""The generated corpus: its layouts, its truth, and that nothing tells a hidden word of the uniform kind."""

import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from shards.corpora.ravdess import EMOTIONS as RAVDESS_EMOTIONS
from shards.corpora.synthetic import SyntheticConfig, generate
from shards.corpora.synthetic_script import CONTENT_WORDS, EMOTION_WORDS, FUNCTION_WORDS, UNIFORM_WORDS, phones, script
from shards.features.landmarks import Landmarks, LandmarksConfig, read_openface
from shards.media.decode import decode_audio
from shards.record import RawClip
from shards.write import WriteConfig
from triptych.config import UserError, config_folder, load

WORDS = [*FUNCTION_WORDS, *CONTENT_WORDS, *(word for words in EMOTION_WORDS.values() for word in words)]


@pytest.fixture(scope="module", params=["emotional", "labelled", "uniform"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SyntheticConfig:
    root = tmp_path_factory.mktemp(request.param) / "raw"
    config = SyntheticConfig(root=str(root), kind=request.param, num_clips=8, num_speakers=4)
    generate(config)
    return config


def decode_frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_clip_has_picture_sound_and_words_in_its_time(corpus: SyntheticConfig) -> None:
    clips = list(corpus.clips())
    assert len({clip.key for clip in clips}) == 8
    assert len({clip.speaker for clip in clips}) == 4
    for clip in clips:
        assert clip.words
        assert clip.video is not None
        frames = decode_frames(clip.video)
        samples = decode_audio((clip.audio or clip.video).read_bytes())
        assert samples is not None
        assert len(samples) / 16000 == pytest.approx(len(frames) / 25, abs=0.07)  # an AAC frame is 64 ms
        assert np.ptp(frames) > 50
        assert np.abs(samples).max() > 0.02
        assert clip.words[0].start_s >= 0
        assert clip.words[-1].end_s <= len(frames) / 25
        assert all(before.end_s < after.start_s for before, after in zip(clip.words, clip.words[1:]))


def test_the_transcript_tells_the_times_at_which_words_are_heard(corpus: SyntheticConfig) -> None:
    for clip in corpus.clips():
        assert clip.words is not None
        assert clip.video is not None
        samples = decode_audio((clip.audio or clip.video).read_bytes())
        assert samples is not None
        spoken = np.zeros(len(samples), bool)
        for word in clip.words:
            spoken[round(word.start_s * 16000) : round(word.end_s * 16000)] = True
        assert np.square(samples[spoken]).mean() > 3 * np.square(samples[~spoken]).mean()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(corpus: SyntheticConfig, tmp_path: Path) -> None:
    """Also with another number of clips and of processes (32 clips are enough for two; one kind shows it)."""
    num_clips = 32 if corpus.kind == "emotional" else 8
    again = SyntheticConfig(root=str(tmp_path / "again"), kind=corpus.kind, num_clips=num_clips, num_speakers=4)
    root = generate(again)
    files = [path for path in Path(corpus.root).rglob("*") if path.suffix in (".mp4", ".m4a", ".csv")]
    assert files
    for path in files:
        assert path.read_bytes() == (root / path.relative_to(corpus.root)).read_bytes()


def points_px(clip: RawClip) -> np.ndarray:
    """[F, 68, 2] across and down, in pixels."""
    columns = read_openface(clip.attachments["landmarks.csv"].read_bytes())
    return np.stack([[columns[f"{axis}_{point}"] for point in range(68)] for axis in "xy"]).transpose(2, 1, 0)


def colour(frame: np.ndarray, points: np.ndarray, right: float = 0) -> np.ndarray:
    """[3] at the middle of some landmarks."""
    x, y = points.mean(axis=0)
    return frame[round(y), round(x + right)].astype(float)


def test_landmarks_lie_on_what_is_drawn(corpus: SyntheticConfig) -> None:
    for clip in corpus.clips():
        assert clip.video is not None
        frames, points = decode_frames(clip.video), points_px(clip)
        assert points.shape == (len(frames), 68, 2)
        opening = points[:, 66, 1] - points[:, 62, 1]
        assert opening.max() > 2
        frame, seen = frames[opening.argmax()], points[opening.argmax()]
        skin = colour(frame, seen[30:31])
        for dark in (seen[36:42], seen[42:48], seen[19:20], seen[24:25], seen[60:68]):  # pupils, brows, mouth
            assert colour(frame, dark).mean() < 0.8 * skin.mean()
        reach = 0.06 * frames.shape[1]
        for edge, outwards in ((seen[3:4], -reach), (seen[13:14], reach)):
            inside, outside = colour(frame, edge, -outwards), colour(frame, edge, outwards)
            assert np.abs(inside - outside).max() > 8


def test_landmarks_become_a_feature_without_lost_steps(corpus: SyntheticConfig) -> None:
    feature = Landmarks(LandmarksConfig())
    for clip in corpus.clips():
        assert clip.video is not None
        values = feature.compute({"landmarks.csv": clip.attachments["landmarks.csv"].read_bytes()})
        assert values is not None
        assert len(values) == len(decode_frames(clip.video))
        assert (values != 0).any(axis=(1, 2)).all()


def test_another_seed_or_key_gives_another_clip() -> None:
    assert script(0, "a", "emotional") == script(0, "a", "emotional")
    assert script(0, "a", "emotional") != script(1, "a", "emotional")
    assert script(0, "a", "emotional") != script(0, "b", "emotional")


def test_labels_are_balanced_and_the_original_reader_knows_them(tmp_path: Path) -> None:
    config = SyntheticConfig(root=str(tmp_path / "raw"), kind="labelled", num_clips=16, num_speakers=4)
    counts = Counter(clip.labels["emotion"] for clip in config.clips())
    assert counts == {"neutral": 4, "happy": 4, "sad": 4, "angry": 4}
    assert set(counts) <= set(RAVDESS_EMOTIONS.values())


def test_the_speaker_table_has_the_form_of_the_original(tmp_path: Path) -> None:
    root = generate(SyntheticConfig(root=str(tmp_path / "raw"), num_clips=2, num_speakers=2))
    lines = (root / "vox2_meta.csv").read_text().splitlines()
    assert lines[0] == "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set "
    assert lines[1] in ("id10001 ,n10001 ,m ,dev ", "id10001 ,n10001 ,f ,dev ")


def test_a_folder_of_another_config_or_of_the_user_is_refused(tmp_path: Path) -> None:
    root = generate(SyntheticConfig(root=str(tmp_path / "raw"), num_clips=1, num_speakers=1))
    with pytest.raises(UserError, match=r"generated with seed 0 \(now 7\)"):
        generate(SyntheticConfig(root=str(root), num_clips=1, num_speakers=1, seed=7))
    marker = root / "synthetic.json"
    marker.write_text(json.dumps({k: v for k, v in json.loads(marker.read_text()).items() if k != "files"}))
    with pytest.raises(UserError, match=r"generated with files None \(now 'media, transcripts, landmarks'\)"):
        generate(SyntheticConfig(root=str(root), num_clips=1, num_speakers=1))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        generate(SyntheticConfig(root=str(mine), num_clips=1, num_speakers=1))
    assert [path.name for path in mine.iterdir()] == ["mine.txt"]


def test_what_was_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shards.corpora.synthetic.write_media", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(SyntheticConfig(root=str(tmp_path / "raw"), num_clips=1, num_speakers=1))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_named_is_refused() -> None:
    with pytest.raises(ValueError, match="24 actors"):
        SyntheticConfig(root="raw", kind="labelled", num_clips=100, num_speakers=25)
    with pytest.raises(ValueError, match="at most 99"):
        SyntheticConfig(root="raw", kind="labelled", num_clips=100, num_speakers=1)
    with pytest.raises(ValueError, match="num_speakers"):
        SyntheticConfig(root="raw", num_clips=2, num_speakers=3)


def test_words_sound_alike_exactly_where_only_the_mood_tells_them_apart() -> None:
    spoken = [*FUNCTION_WORDS, *CONTENT_WORDS, *EMOTION_WORDS["neutral"]]
    for words in (spoken, UNIFORM_WORDS):
        assert len({phones(word) for word in words}) == len(words)
    for alike in zip(*EMOTION_WORDS.values(), strict=True):
        assert len({phones(word) for word in alike}) == 1
    assert len(set(WORDS)) == len(WORDS)


def test_words_hint_at_the_emotion_as_often_as_asked() -> None:
    for share in (0.0, 0.5):
        own = other = 0
        for index in range(300):
            drawn = script(0, f"clip{index}", "emotional", emotion_words=share)
            for word in drawn.words:
                own += word.text in EMOTION_WORDS[drawn.emotion]
                other += any(word.text in words for name, words in EMOTION_WORDS.items() if name != drawn.emotion)
        # Of the content words `share` belong to the emotion, and a quarter of 6 % of any emotion.
        assert own / (own + other) == pytest.approx((share + 0.015) / (share + 0.06), abs=0.1)


def test_uniform_words_are_independent_of_length_and_neighbour() -> None:
    clips = [script(0, f"clip{index}", "uniform").words for index in range(2000)]
    texts = np.array([[UNIFORM_WORDS.index(word.text) for word in words] for words in clips])
    lengths = np.array([[word.end_s - word.start_s for word in words] for words in clips])
    num_words = len(UNIFORM_WORDS)
    assert_uniform(np.bincount(texts.ravel(), minlength=num_words))
    assert_uniform(np.bincount((texts[:, :-1] * num_words + texts[:, 1:]).ravel(), minlength=num_words**2))
    means = np.array([lengths[texts == word].mean() for word in range(num_words)])
    assert np.abs(means - lengths.mean()).max() < 5 * lengths.std() / np.sqrt(texts.size / num_words)


def assert_uniform(counts: np.ndarray) -> None:
    """Pearson's chi-squared is within five deviations of what equal chances give."""
    chi_squared = np.square(counts - counts.mean()).sum() / counts.mean()
    degrees = len(counts) - 1
    assert abs(chi_squared - degrees) < 5 * np.sqrt(2 * degrees)


def test_outside_of_uniform_words_nothing_sounds_or_moves_after_coding(tmp_path: Path) -> None:
    config = SyntheticConfig(root=str(tmp_path / "raw"), kind="uniform", num_clips=3, num_speakers=3)
    for clip in config.clips():
        assert clip.words is not None
        assert clip.video is not None
        assert clip.audio is not None
        samples = decode_audio(clip.audio.read_bytes())
        assert samples is not None
        frames = decode_frames(clip.video)
        sample_s, frame_s = np.arange(len(samples)) / 16000, np.arange(len(frames)) / 25
        silent, still = np.ones(len(samples), bool), np.ones(len(frames), bool)
        for word in clip.words:
            silent &= (sample_s < word.start_s) | (sample_s > word.end_s)
            still &= (frame_s + 0.04 < word.start_s) | (frame_s > word.end_s)
        assert silent.sum() > 0.1 * len(samples)
        assert not samples[silent].any()
        assert (frames[still] == frames[0]).all()
        points = points_px(clip)
        assert (points[still] == points[0]).all()
        assert (points[~still] != points[0]).any()


@pytest.mark.parametrize("name", ["synthetic", "synthetic_labelled", "uniform"])
def test_the_shipped_configs_name_a_corpus_that_can_be_made(name: str) -> None:
    config = load(WriteConfig, config_folder() / "shards" / f"{name}.yaml")
    assert config.corpus.synthetic is not None
