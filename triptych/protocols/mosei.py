"""CMU-MOSEI: sentiment in [-3, 3] and six emotions in [0, 3] of what people say on YouTube (Zadeh et al. 2018)."""

from dataclasses import replace

from triptych.labels import Number
from triptych.protocols.protocol import Protocol, Published, Target
from triptych.protocols.standard_folds import StandardFolds

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""In the order of the corpus' columns."""

STANDARD_FOLDS = StandardFolds(
    name="mosei/standard",
    num_videos={"train": 2249, "valid": 300, "test": 678},
    sha256="b23b2ce3e90c5127a33c866f9d3d28f3c7ac2b10ecb05cba407194955f199883",
)
STANDARD = STANDARD_FOLDS.rule(
    {"train": 16326, "valid": 1871, "test": 4659},
    "CMU-MultimodalSDK, by video; segments as SSE-FT prints them, others have 16,327 or 16,331 and 4,662",
)

SENTIMENT_METRICS = ("acc7", "acc2_nonzero", "f1_nonzero", "acc2_has0", "f1_has0", "mae", "corr")


def _per_emotion(metric: str, *values: float) -> dict[str, float]:
    return {f"{emotion} {metric}": value for emotion, value in zip(EMOTIONS, values, strict=True)}


MOSEI_EMOTION = Protocol(
    name="mosei_emotion",
    kind="emotions",
    targets=tuple(Target(label=emotion, form=Number(), positive_above=0.0) for emotion in EMOTIONS),
    metrics=("w-ACC", "weighted F1", "F1", "accuracy"),
    select="w-ACC",
    threshold="probability 0.5 for every emotion, not tuned",
    splits=(STANDARD,),
    published=(
        Published(
            system="Khare et al. 2021, masked words on VoxCeleb2, softmax",
            scores={
                "w-ACC": 67.4,
                "weighted F1": 78.6,
                **_per_emotion("w-ACC", 68.1, 65.1, 67.0, 65.1, 74.5, 64.5),
                **_per_emotion("weighted F1", 68.1, 72.1, 74.4, 88.0, 82.3, 86.4),
            },
            split="standard",
            source="Khare et al. 2021, Table 1",
            grade="A",
            seed=True,
            note="best of 10 initialisations on validation, by the mean of both",
        ),
        Published(
            system="Khare et al. 2021, masked words on VoxCeleb2, NCE",
            scores={"w-ACC": 66.9, "weighted F1": 78.7},
            split="standard",
            source="Khare et al. 2021, Table 1",
            grade="A",
            seed=True,
        ),
        Published(
            system="Khare et al. 2021, no pretraining",
            scores={"w-ACC": 66.6, "weighted F1": 78.5},
            split="standard",
            source="Khare et al. 2021, Table 1",
            grade="A",
            seed=True,
        ),
        Published(
            system="Franceschini et al. 2022, linear",
            scores={
                "w-ACC": 66.70,
                "weighted F1": 69.50,
                **_per_emotion("w-ACC", 68.82, 62.93, 67.91, 62.93, 72.91, 64.49),
                **_per_emotion("weighted F1", 69.20, 55.70, 70.09, 72.73, 74.25, 74.85),
            },
            split="standard",
            source="Franceschini et al. 2022",
            grade="A",
            seed=True,
            note="the released code trains its encoder on validation and test clips too, and calls an emotion present "
            "from intensity 1",
        ),
        Published(
            system="FE2E, end to end, supervised",
            scores={"w-ACC": 67.6, "F1": 47.4},
            split="its own of 14,524 / 1,765 / 4,188 segments",
            source="Franceschini et al. 2022",
            grade="A",
            note="thresholds tuned on validation; F1 is of the positive class",
        ),
    ),
    note="An emotion is present where its intensity is above 0. w-ACC is the balanced accuracy; tables with averages "
    "above 80 print plain accuracy. Weighted F1 rewards never saying yes: read it beside the trivial row.",
)

MOSEI_EMOTION_KHARE = replace(
    MOSEI_EMOTION,
    name="mosei_emotion_khare",
    metrics=(*MOSEI_EMOTION.metrics, "w-ACC and F1"),
    select="w-ACC and F1",
    note=f"{MOSEI_EMOTION.note} The mean of w-ACC and weighted F1 chooses on validation, as in Khare et al. 2021.",
)

MOSEI_SENTIMENT = Protocol(
    name="mosei_sentiment",
    kind="sentiment",
    targets=(Target(label="sentiment", form=Number()),),
    metrics=SENTIMENT_METRICS,
    select="mae",
    select_lowest=True,
    threshold="none: the number is rounded or compared with 0",
    splits=(STANDARD,),
    published=(
        Published(
            system="SSE-FT",
            scores={"acc7": 55.7, "acc2_nonzero": 87.3, "f1_nonzero": 87.0, "mae": 0.529, "corr": 0.792},
            split="standard",
            source="Siriwardhana et al. 2020, Table 5",
            grade="A",
            seed=True,
            note="its ablation table says 55.5",
        ),
        Published(
            system="UniMSE",
            scores={"acc7": 54.39, "acc2_nonzero": 87.50, "f1_nonzero": 87.46, "mae": 0.523},
            split="standard",
            source="a digest of arXiv 2608.16201",
            grade="B",
        ),
        Published(
            system="ITHP-DeBERTa",
            scores={"acc2_nonzero": 87.3, "f1_nonzero": 87.4},
            split="standard",
            source="several reviews of it (ICLR 2024)",
            grade="B",
        ),
        Published(
            system="CENET, run again by MMSA",
            scores={"acc7": 54.26, "acc2_nonzero": 86.38, "f1_nonzero": 86.32, "mae": 0.526, "corr": 0.778},
            split="standard",
            source="MMSA, results table",
            grade="A",
        ),
        Published(
            system="TETFN, run again by MMSA",
            scores={"acc7": 53.90, "acc2_nonzero": 86.21, "f1_nonzero": 86.11, "mae": 0.537, "corr": 0.770},
            split="standard",
            source="MMSA, results table",
            grade="A",
        ),
        Published(
            system="MulT, run again by MMSA",
            scores={"acc7": 52.84, "acc2_nonzero": 84.63, "f1_nonzero": 84.52, "mae": 0.559, "corr": 0.733},
            split="standard",
            source="MMSA, results table",
            grade="A",
        ),
        Published(
            system="ChatGLM3-6B + MGSI",
            scores={"acc7": 54.69, "acc2_nonzero": 82.72, "f1_nonzero": 83.00, "mae": 0.509},
            split="standard",
            source="a digest of arXiv 2608.16201",
            grade="B",
        ),
        Published(
            system="arXiv 2505.06110",
            scores={"acc7": 97.87, "f1_nonzero": 96.8, "mae": 0.106},
            split="not known",
            source="its abstract",
            grade="C",
            note="far outside all other results: a leak or a wrong evaluation is likely",
        ),
    ),
    note="22 % of the standard test clips are exactly 0, which acc2_nonzero and f1_nonzero leave out.",
)
