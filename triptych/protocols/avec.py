"""SEWA as the AVEC challenges of 2017 and 2019 have it: arousal, valence and liking at 10 Hz. Two sets of recordings,
two protocols: their numbers never stand in one column."""

from triptych.labels import Series
from triptych.protocols.protocol import Protocol, Published, Target
from triptych.protocols.splits import Fold, SplitRule, own_split

DIMENSIONS = ("arousal", "valence", "liking")
_TARGETS = tuple(Target(label=name, form=Series(rate_hz=10.0)) for name in DIMENSIONS)
_NOTE = (
    "CCC over all recordings end to end, population moments. Labels of the test part are not public; arousal and "
    "valence are what papers print."
)


def _official(name: str, published: dict[str, int], source: str) -> SplitRule:
    fold = Fold(name=f"{name}/official", place=own_split, needs=("train", "valid"))
    return SplitRule(name=f"{name}/official", folds=(fold,), published=published, source=source)


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
    splits=(_official("avec2019", {}, "by the names Train_, Devel_ and Test_, in German, Hungarian and Chinese"),),
    note=f"{_NOTE} Recordings of 2017 and others, in three languages: not comparable with avec2017.",
)
