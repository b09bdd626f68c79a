"""Files like those of AVEC 2019: four recordings of 9 to 18 s in three languages, the test ones without labels."""

from pathlib import Path

from shards.corpora.look_alikes.avec_recording import make_recording

RECORDINGS = ("Train_DE_01", "Train_HU_01", "Devel_DE_01", "Test_CN_01")


def make(folder: Path, seed: int) -> None:
    """Fill an empty folder.

    Faults: no labels of the test recording, and a recording of which neither sound nor picture is there.
    """
    for number, name in enumerate(RECORDINGS):
        make_recording(folder, name, seed, utterances=5 - number % 3, header=True)
    (folder / "audio" / "Train_HU_01.wav").unlink()
    (folder / "video" / "Train_HU_01.avi").unlink()
