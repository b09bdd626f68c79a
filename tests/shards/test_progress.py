import pytest

from shards import progress


def test_the_log_of_a_job_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))  # a clip takes 25 s

    with progress.progress("writing", total=20, done=10) as advance:
        for _ in range(6):
            advance(1)

    assert capsys.readouterr().err.splitlines() == [
        "writing: 13 of 20 clips, 0.0 clips/s, 3 min left",
        "writing: 16 of 20 clips, 0.0 clips/s, 2 min left",
    ]
