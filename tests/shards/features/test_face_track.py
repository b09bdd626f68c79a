import numpy as np
import pytest

from shards.features.face_track import Track, main_track, squares


def box(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def boxes(*each: np.ndarray) -> np.ndarray:
    return np.array(each).reshape(-1, 4)


def centres(track: Track | None) -> list[float]:
    assert track is not None
    return [(one[0] + one[2]) / 2 for one in track.boxes]


def test_two_people_are_not_mixed_and_the_larger_face_wins() -> None:
    """They come in another order each time, as a detector lists them."""
    detections = {}
    for instant in range(6):
        speaker, listener = box(100 + 5 * instant, 100, 80), box(300, 100, 50)
        detections[instant] = boxes(*((speaker, listener) if instant % 2 else (listener, speaker)))

    assert centres(main_track(detections)) == [100, 105, 110, 115, 120, 125]


def test_the_face_that_stays_wins_over_a_large_one_that_passes() -> None:
    small, passing = box(100, 100, 40), box(300, 100, 120)
    detections = {instant: boxes(*([small, passing] if instant == 3 else [small])) for instant in range(10)}

    assert set(centres(main_track(detections))) == {100}


def test_a_cut_away_and_back_is_the_same_face() -> None:
    detections = {0: boxes(box(100, 100, 60)), 5: boxes(box(300, 100, 90)), 10: boxes(box(102, 100, 60))}

    track = main_track({**detections, 15: boxes(box(103, 100, 60))})

    assert track is not None
    assert track.instants == [0, 10, 15]


@pytest.mark.parametrize("detections", [{}, {0: boxes(), 5: boxes()}])
def test_without_a_face_there_is_no_track(detections: dict[int, np.ndarray]) -> None:
    assert main_track(detections) is None


def test_equal_tracks_are_told_apart_by_their_order() -> None:
    detections = {0: boxes(box(300, 100, 50), box(100, 100, 50))}
    assert centres(main_track(detections)) == [300]


def test_the_square_moves_with_the_face_between_detections() -> None:
    track = Track([0, 4, 8], [box(100, 50, 40), box(108, 50, 40), box(116, 50, 40)])

    found = squares(track, steps=9, max_gap=5, smooth=1)

    np.testing.assert_allclose(found[:, 0], 100 + 2 * np.arange(9))
    np.testing.assert_allclose(found[:, 1:], [[50, 40]] * 9)


def test_the_longer_side_of_a_box_is_the_squares() -> None:
    track = Track([0], [np.array([10.0, 10.0, 30.0, 50.0])])
    np.testing.assert_allclose(squares(track, steps=1, max_gap=5, smooth=1), [[20, 30, 40]])


def test_a_face_away_for_long_leaves_a_gap_and_short_absences_are_bridged() -> None:
    track = Track([6, 12, 30], [box(100, 50, 40)] * 3)

    found = squares(track, steps=40, max_gap=8, smooth=3)

    there = np.flatnonzero(~np.isnan(found[:, 0]))
    # 4 frames longer than seen at either end, since the detector looks only now and then
    assert there.tolist() == [*range(2, 17), *range(26, 35)]
    np.testing.assert_allclose(found[there], [[100, 50, 40]] * len(there))


def test_jitter_of_single_detections_is_averaged_out() -> None:
    jitter = np.where(np.arange(20) % 2, 4.0, -4.0)
    track = Track(list(range(20)), [box(100 + shift, 50, 40) for shift in jitter])

    steady = squares(track, steps=20, max_gap=5, smooth=7)

    assert np.abs(steady[4:-4, 0] - 100).max() < 0.6
