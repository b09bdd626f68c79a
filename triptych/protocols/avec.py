"""SEWA as the AVEC challenges of 2017 and 2019 have it: arousal, valence and liking at 10 Hz. Two sets of recordings,
two protocols: their numbers never stand in one column."""

from collections.abc import Sequence
from hashlib import sha256

from triptych.labels import Series
from triptych.protocols.leaks import Clip
from triptych.protocols.protocol import Protocol, Published, Target
from triptych.protocols.splits import Fold, LeftOut, SplitRule, own_split

DIMENSIONS = ("arousal", "valence", "liking")
_TARGETS = tuple(Target(label=name, form=Series(rate_hz=10.0)) for name in DIMENSIONS)
_NOTE = (
    "CCC over all recordings end to end, population moments. Labels of the test part are not public; arousal and "
    "valence are what papers print."
)
_CONVERSATIONS = "the names do not tell who talked with whom: partners may be on both sides of train and valid"


def _official(name: str, published: dict[str, int], source: str) -> SplitRule:
    fold = Fold(name=f"{name}/official", place=own_split, needs=("train", "valid"))
    return SplitRule(name=f"{name}/official", folds=(fold,), published=published, source=source)


def _devel(name: str) -> SplitRule:
    """Test on Devel, whose labels are public; validate on a fifth of the Train recordings (at least one), the first by
    the SHA-256 of their names."""

    def folds_of(clips: Sequence[Clip]) -> tuple[Fold, ...]:
        trained = {clip.source["video"] for clip in clips if clip.source.get("split") == "train"}
        ordered = sorted(trained, key=lambda video: sha256(video.encode()).digest())
        validated = set(ordered[: max(1, len(ordered) // 5)])

        def place(clip: Clip) -> tuple[str, ...] | LeftOut:
            placed = own_split(clip)
            if isinstance(placed, LeftOut) or placed == ("test",):
                return LeftOut("in the Test part, whose labels are not public")
            if placed == ("valid",):
                return ("test",)
            return ("valid",) if clip.source["video"] in validated else ("train",)

        return (Fold(name=f"{name}/devel", place=place, note=_CONVERSATIONS),)

    return SplitRule(
        name=f"{name}/devel", folds_of=folds_of, source="tested on Devel; validation is a fifth of Train (ours)"
    )


AVEC2017 = Protocol(
    name="avec2017",
    kind="series",
    targets=_TARGETS,
    metrics=("CCC",),
    select="CCC",
    splits=(
        _official(
            "avec2017",
            {"train": 34, "valid": 14, "test": 16},
            "recordings, by the names Train_, Devel_ and Test_; the two of a conversation are on one side",
        ),
        _devel("avec2017"),
    ),
    published=(
        Published(
            system="Tzirakis et al. 2021, text, sound and picture",
            scores={"arousal CCC": 0.690, "valence CCC": 0.783},
            split="official",
            source="Tzirakis et al. 2021",
            grade="A",
            seed=True,
            note="on validation .797 and .818",
        ),
        Published(
            system="Chen et al.",
            scores={"arousal CCC": 0.672, "valence CCC": 0.756},
            split="official",
            source="Tzirakis et al. 2021",
            grade="A",
            note="as that paper quotes it",
        ),
        Published(
            system="End2You, ResNet-50, picture",
            scores={"arousal CCC": 0.620, "valence CCC": 0.670},
            split="official",
            source="End2You's page of trained models",
            grade="A",
        ),
    ),
    note=_NOTE,
)
AVEC2019 = Protocol(
    name="avec2019",
    kind="series",
    targets=_TARGETS,
    metrics=("CCC",),
    select="CCC",
    splits=(
        _official("avec2019", {}, "by the names Train_, Devel_ and Test_, in German, Hungarian and Chinese"),
        _devel("avec2019"),
    ),
    note=f"{_NOTE} Recordings of 2017 and others, in three languages: not comparable with avec2017.",
)
