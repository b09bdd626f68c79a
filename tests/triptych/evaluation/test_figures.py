import numpy as np

from triptych.evaluation import figures


def test_a_confusion_panel_a_subset(tmp_path):
    sizes = []
    for number in (1, 4):
        panels = {f"subset {index}": np.array([[3, 1], [0, 4]]) for index in range(number)}
        figures.confusions(panels, ("sad", "happy"), "", tmp_path / f"{number}.png")
        sizes.append((tmp_path / f"{number}.png").stat().st_size)
    assert sizes[1] > 2 * sizes[0] > 2000


def test_learning_curves_leave_undefined_points_out(tmp_path):
    points = {0.01: {"undefined": "one class"}, 0.1: {"value": 0.4}, 1.0: {"value": 0.5, "low": 0.4, "high": 0.6}}
    figures.learning_curve({"mine (audio)": points}, "UA", True, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_an_embedding_is_the_same_every_time_and_leaves_unlabelled_clips_out(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.array([0, 1] * 6 + [-1])
    features = (generator.normal(size=(13, 4)) + 5 * labels[:, None]).astype(np.float32)
    pictures = []
    for index in range(2):
        path = tmp_path / f"{index}.png"
        features[-1] = index * 100  # of the unlabelled one
        figures.embedding(features, labels, ("sad", "happy"), path)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]
