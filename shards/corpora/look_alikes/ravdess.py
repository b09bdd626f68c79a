"""RAVDESS as it unpacks, tiny: three actors, four emotions, the first sentence once; OpenFace's csv files beside.

    Video_Speech_Actor_01/Actor_01/01-01-...mp4 and 02-01-...mp4
    Audio_Speech_Actors_01-24/Actor_01/03-01-...wav
    Audio_Song_Actors_01-24/Actor_01/03-02-...wav         one song
    FacialTracking_Actors_01-24/01-01-...csv              named like the av clips

One trial of actor 02 is in no modality. Actor 03 has sound alone.
"""

from pathlib import Path

from shards.corpora.look_alikes.people import PX, utter, write_wav
from shards.corpora.look_alikes.picture import write_picture
from shards.corpora.synthetic import RAVDESS_CODES
from shards.corpora.synthetic_landmarks import openface_csv
from shards.corpora.synthetic_render import look, write_media
from shards.corpora.synthetic_script import script

ACTORS = ("01", "02", "03")
MISSING = "01-05-01-01-01-02"
"""Angry, by actor 02."""
SONG = "02-03-01-01-01-01"


def make(folder: Path, seed: int) -> None:
    """Fill an empty folder: 11 performances in 7 av, 7 video and 11 audio files, 7 csv files, and one song as audio."""
    for actor in ACTORS:
        for mood, code in RAVDESS_CODES.items():
            take = f"01-{code:02d}-01-01-01-{actor}"
            if take != MISSING:
                _write(folder, seed, actor, take, mood, seen=actor != "03")
    song = utter(seed, SONG[-2:], SONG, "happy")
    write_wav(folder / "Audio_Song_Actors_01-24" / "Actor_01" / f"03-{SONG}.wav", song.samples)


def _write(folder: Path, seed: int, actor: str, take: str, mood: str, *, seen: bool) -> None:
    """The files of one performance."""
    said = utter(seed, actor, take, mood)
    write_wav(folder / "Audio_Speech_Actors_01-24" / f"Actor_{actor}" / f"03-{take}.wav", said.samples)
    if not seen:
        return
    videos = folder / f"Video_Speech_Actor_{actor}" / f"Actor_{actor}"
    videos.mkdir(parents=True, exist_ok=True)
    write_media(said.frames, said.samples, videos / f"01-{take}.mp4", None, independent=False)
    write_picture(videos / f"02-{take}.mp4", said.frames)
    tracked = folder / "FacialTracking_Actors_01-24"
    tracked.mkdir(exist_ok=True)
    face = look(script(seed, take, "labelled", mood), seed, actor, take)
    (tracked / f"01-{take}.csv").write_text(openface_csv(face, PX))
