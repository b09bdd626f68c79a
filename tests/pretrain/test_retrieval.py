"""Retrieval on held-out clips: the mean over all galleries, without drawing one."""

from itertools import combinations

import pytest
import torch

from pretrain.objectives.retrieval import expected_recall, recalls
from triptych.training.task import Embeddings


def embeddings(audio: torch.Tensor, video: torch.Tensor, present: dict[str, torch.Tensor] | None = None) -> Embeddings:
    everywhere = torch.ones(len(audio), dtype=torch.bool)
    there = {"audio": everywhere, "video": everywhere, **(present or {})}
    return Embeddings(rows={"audio": audio[:, None], "video": video[:, None]}, present=there)


@pytest.mark.parametrize("cut", [1, 2, 5])
@pytest.mark.parametrize("gallery", [2, 3, 6, 50])
def test_the_expectation_is_the_mean_over_all_galleries(cut: int, gallery: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 6)
    better = (scores > scores.diagonal()[:, None]).sum(dim=1)
    wanted = []
    for clip in range(6):
        others = [other for other in range(6) if other != clip]
        found = [
            sum(bool(scores[clip, other] > scores[clip, clip]) for other in drawn) < cut
            for drawn in combinations(others, min(gallery, 6) - 1)
        ]
        wanted.append(sum(found) / len(found))
    assert expected_recall(better, cut, gallery).tolist() == pytest.approx(wanted, abs=1e-9)


def test_own_panels_that_are_nearest_are_all_found_and_equal_ones_are_not() -> None:
    torch.manual_seed(0)
    z = torch.randn(40, 8)
    assert recalls(embeddings(z, 3 * z), 20) == {
        "audio_to_video": {1: pytest.approx(1.0), 5: pytest.approx(1.0)},
        "video_to_audio": {1: pytest.approx(1.0), 5: pytest.approx(1.0)},
    }
    assert recalls(embeddings(z, torch.ones(40, 8)), 20)["audio_to_video"][1] == 0


def test_chance_is_the_cut_over_the_gallery() -> None:
    torch.manual_seed(0)
    found = recalls(embeddings(torch.randn(1500, 16), torch.randn(1500, 16)), 100)
    for recall in found.values():
        assert recall[1] == pytest.approx(0.01, abs=0.004)
        assert recall[5] == pytest.approx(0.05, abs=0.01)


def test_clips_that_lack_a_panel_are_neither_asked_nor_in_the_gallery() -> None:
    torch.manual_seed(0)
    audio, video = torch.randn(30, 4), torch.randn(30, 4)
    there = torch.arange(30) % 3 > 0
    assert recalls(embeddings(audio, video, {"audio": there}), 10) == recalls(
        embeddings(audio[there], video[there]), 10
    )
    assert recalls(embeddings(audio, video, {"audio": there, "video": ~there}), 10) == {}
