from pathlib import Path

import pytest

from shards.writing.work_folder import Plan, PlannedShard, Work
from shards.writing.write_planned import Quarantine
from triptych.config import UserError


def quarantine(out: Path, num_clips: int, share: float) -> Quarantine:
    shards = [PlannedShard(name="train-000000", split="train", num_clips=num_clips)]
    plan = Plan(
        identity={},
        corpus="tiny",
        split={},
        features=[],
        max_quarantined_share=share,
        found=num_clips,
        filtered={},
        shards=shards,
    )
    (out / "work").mkdir()
    return Quarantine(Work(out), plan, share, {})


def test_a_missing_mount_is_noticed_long_before_the_allowed_share_is_used_up(tmp_path: Path) -> None:
    counted = quarantine(tmp_path, 1_000_000, 0.01)
    for number in range(49):
        counted.count(f"clip{number}", "not there")

    with pytest.raises(UserError, match=r"50 clips so far .* by far: of the 50 opened so far.* clip0: not there"):
        counted.count("clip49", "not there")
    (listed,) = (tmp_path / "work").glob("quarantined-*.json")
    assert "clip49" in listed.read_text()


def test_bad_clips_within_the_share_stop_nothing(tmp_path: Path) -> None:
    counted = quarantine(tmp_path, 10_000, 0.01)
    for number in range(10):  # the first ten may all be bad
        counted.count(f"bad{number}", "damaged")
    for number in range(9_900):
        counted.count(f"clip{number}", "damaged" if number % 110 == 0 else None)

    assert len(counted.reasons) == 100
    with pytest.raises(UserError, match=r"101 clips so far .* \(0.01\) of 10000\. First"):
        counted.count("one more", "damaged")


def test_a_share_of_none_stops_at_the_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 clips so far"):
        quarantine(tmp_path, 10_000, 0).count("bad", "damaged")
