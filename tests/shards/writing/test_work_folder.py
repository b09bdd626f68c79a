import subprocess
import sys
from pathlib import Path

import pytest

from shards.record import RawClip, Word
from shards.writing.work_folder import Plan, PlannedShard, Work
from triptych.config import UserError

CLIPS = [
    RawClip(
        key="id0/v/1",
        speaker="id0",
        video=Path("/data/na\udce9me.mp4"),  # a file name that is not UTF-8
        attachments={"landmarks.csv": Path("/data/1.csv")},
        words=(Word("été", 0.1, 0.30000000000000004, 0.5), Word("a b", 1.0, 2.0)),
        source={"video": "v"},
        labels={"valence": 0.25},
    ),
    RawClip(key="id0/v/2", speaker="id0", audio=Path("/data/2.m4a"), words=()),
    RawClip(key="id0/v/3", speaker="id0", audio=Path("/data/3.m4a")),
]
SHARD = PlannedShard(name="train-000000", split="train", num_clips=3)
PLAN = Plan(
    identity={"split.seed": 0},
    corpus="tiny",
    split={},
    features=[],
    max_quarantined_share=0.01,
    found=4,
    filtered={"excluded": 1},
    shards=[SHARD],
)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    work = Work(tmp_path)
    work.save(PLAN, [(SHARD.name, CLIPS)], "corpus: {}\n")
    return work


def test_a_plan_and_its_clips_come_back(work: Work) -> None:
    assert work.plan() == PLAN
    with work.claim(SHARD) as file:
        assert work.clips(SHARD, file) == CLIPS


def test_the_first_plan_stays(work: Work) -> None:
    work.save(PLAN, [(SHARD.name, CLIPS[:1])], "")

    with work.claim(SHARD) as file:
        assert work.clips(SHARD, file) == CLIPS
    assert [path.name for path in work.out.iterdir()] == ["work"]


def test_relative_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    work = Work(tmp_path / "out")
    work.out.mkdir()
    work.save(PLAN, [(SHARD.name, [RawClip(key="a", speaker="b", video=Path("raw/a.mp4"))])], "")

    with work.claim(SHARD) as file:
        (clip,) = work.clips(PlannedShard(name=SHARD.name, split="train", num_clips=1), file)
    assert clip.video == tmp_path / "raw" / "a.mp4"


def test_a_plan_or_list_that_cannot_be_read_is_refused(work: Work) -> None:
    path = work.folder / "train-000000.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with work.claim(SHARD) as file, pytest.raises(UserError, match=r"train-000000.jsonl: is damaged"):
        work.clips(SHARD, file)
    (work.folder / "plan.json").write_text('{"found": 3}')
    with pytest.raises(UserError, match="no plan of this version"):
        work.plan()


def test_one_process_at_a_time_writes_a_shard(work: Work) -> None:
    again = (
        "import sys; from pathlib import Path; from shards.writing.work_folder import PlannedShard, Work\n"
        "with Work(Path(sys.argv[1])).claim(PlannedShard(name='train-000000', split='train', num_clips=3)): pass"
    )
    command = [sys.executable, "-c", again, str(work.out)]
    with work.claim(SHARD) as file:
        work.clips(SHARD, file)
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "another process is writing train-000000" in refused.stderr
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_only_this_shards_rests_are_removed(work: Work) -> None:
    for name in (".train-000000.1234.tar.tmp", ".train-000000.index.json.tmp", ".train-000001.1234.tar.tmp"):
        (work.folder / name).touch()

    work.remove_unfinished(SHARD)

    assert [path.name for path in work.folder.glob(".*")] == [".train-000001.1234.tar.tmp"]
