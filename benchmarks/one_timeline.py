"""Do picture and sound come at their times, whatever file people have? Generated films that tell the time, by kind.

    python benchmarks/one_timeline.py [--files 20] [--code FOLDER]

Each film's frames have their number in their pixels, and its sound beeps in another pitch every half second: what is
read says when it is from. A film is read whole, cut, and as stored frames of both, and judged by the test of
tests/shards/media/test_one_timeline.py. right: all ways give picture and sound at their times, to half a frame and
0.1 dB; refused: a DecodeError, which quarantines the clip by name; wrong: anything else, without a word to the user.

FOLDER is a checkout of another version, whose `shards` is judged in place of this one's.
"""

import argparse
import importlib.util
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Judge every kind and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20, help="of each kind")
    parser.add_argument("--code", type=Path, default=ROOT, help="checkout whose `shards` is judged")
    arguments = parser.parse_args()
    sys.path[:0] = [str(arguments.code), str(ROOT / "tests" / "plugins")]
    test = _load(ROOT / "tests" / "shards" / "media" / "test_one_timeline.py")
    print("| kind | files | right | refused by name | wrong |\n|---|---:|---:|---:|---:|")
    total = Counter[str]()
    for kind, draw in kinds(test.Film, test.drawn).items():
        found = Counter(_judged(test, draw(random.Random(seed), seed)) for seed in range(arguments.files))
        total += found
        print(_row(kind, found), flush=True)
    print(_row("all", total))


def kinds(film: Callable[..., Any], drawn: Callable[[int], Any]) -> dict[str, Callable[[random.Random, int], Any]]:
    """Kind -> a film of it, drawn by chance and a number."""
    channels = [
        ("stereo", (1.0, 1.0)),
        ("stereo", (1.0, 0.0)),
        ("5.1", (1.0,) * 6),
        ("5.1", (0.0, 0.0, 1.0) + (0.0,) * 3),
    ]
    codecs = [
        ("libsvtav1", "yuv420p"),
        ("libsvtav1", "yuv420p10le"),
        ("libx264", "yuv420p10le"),
        ("libvpx-vp9", "yuv420p"),
    ]

    def coded(chance: random.Random, number: int) -> Any:
        codec, pixels = codecs[number % len(codecs)]
        return film(codec=codec, pixels=pixels, options={"preset": "8"} if "av1" in codec else {})

    def mixed(chance: random.Random, number: int) -> Any:
        layout, gains = channels[number % len(channels)]
        return film(layout=layout, gains=gains, sound=chance.choice(["aac", "flac"]))

    def jumping(chance: random.Random, number: int) -> Any:
        ticks, tick = [], 0
        while tick < 2400:
            ticks.append(tick)
            tick += chance.choice([20, 33, 40, 67, 120])
        return film(ticks=ticks)

    return {
        "plain, 15 to 30 frames a second": lambda chance, number: film(fps=Fraction(chance.choice([15, 24, 25, 30]))),
        "edit list (cut without coding anew)": lambda chance, number: film(
            options={"g": chance.choice(["12", "250"]), "bf": "2"}, copied_from_s=chance.randrange(3, 35) / 25
        ),
        "picture or sound starts late": lambda chance, number: film(
            late=[(chance.uniform(0.05, 0.8), 0.0), (0.0, chance.uniform(0.05, 0.8))][number % 2]
        ),
        "a hole in the sound": lambda chance, number: film(hole=(1.0, chance.uniform(1.1, 1.9))),
        "several channels": mixed,
        "AV1, 10 bits, VP9": coded,
        "turned (phones)": lambda chance, number: film(turn=1 + number % 3),
        "variable rate": jumping,
        "all of these at once": lambda chance, number: drawn(1000 + number),
    }


def _judged(test: Any, film: Any) -> str:
    from shards.media.decode import DecodeError

    with tempfile.TemporaryDirectory() as folder:
        try:
            test.check(film, Path(folder) / "film.mp4")
        except DecodeError:
            return "refused"
        except Exception:  # what else an older version does on such a file is not told to a user either
            return "wrong"
    return "right"


def _row(kind: str, found: Counter[str]) -> str:
    return f"| {kind} | {found.total()} | {found['right']} | {found['refused']} | {found['wrong']} |"


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
