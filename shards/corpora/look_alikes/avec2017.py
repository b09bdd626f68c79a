"""Files like those of AVEC 2017: five recordings of 9 to 18 s, of which the test ones have no labels."""

from pathlib import Path

from shards.corpora.look_alikes.avec_recording import make_recording

RECORDINGS = ("Train_01", "Train_02", "Devel_01", "Test_01", "Test_02")


def make(folder: Path, seed: int) -> None:
    """Fill an empty folder.

    Faults: no labels of the test recordings, a last window that is shorter than the others, a recording without
    video, one without transcript and turns, and one whose labels leave out half a second.
    """
    for number, name in enumerate(RECORDINGS):
        make_recording(folder, name, seed, utterances=5 - number % 3, header=False)
    (folder / "video" / "Train_02.avi").unlink()
    (folder / "turns" / "Devel_01.csv").unlink()
    (folder / "transcriptions" / "Devel_01.csv").unlink()
    labels = folder / "labels" / "Train_02.csv"
    lines = labels.read_text(encoding="utf-8").splitlines(keepends=True)
    labels.write_text("".join([*lines[:30], *lines[35:]]), encoding="utf-8")
