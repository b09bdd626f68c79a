"""CMU-MOSI: sentiment in [-3, 3] of 93 film reviews on YouTube (Zadeh et al. 2016)."""

from triptych.labels import Number
from triptych.protocols.mosei import SENTIMENT_METRICS
from triptych.protocols.protocol import Protocol, Published, Target
from triptych.protocols.standard_folds import StandardFolds

STANDARD_FOLDS = StandardFolds(
    name="mosi/standard",
    num_videos={"train": 52, "valid": 10, "test": 31},
    sha256="808d3759404efedae96de01dbdc0c0bfc3438e49a7ca117bc98104e637fd46f8",
)

MOSI = Protocol(
    name="mosi",
    kind="sentiment",
    targets=(Target(label="sentiment", form=Number()),),
    metrics=SENTIMENT_METRICS,
    select="mae",
    select_lowest=True,
    threshold="none: the number is rounded or compared with 0",
    splits=(
        STANDARD_FOLDS.rule({"train": 1284, "valid": 229, "test": 686}, "CMU-MultimodalSDK, by video; SSE-FT: 1,283"),
    ),
    published=(
        Published(
            system="SSE-FT",
            scores={"acc7": 46.5, "acc2_nonzero": 83.9, "f1_nonzero": 83.5, "mae": 0.776, "corr": 0.768},
            split="standard",
            source="the authors' correction of Siriwardhana et al. 2020, Table 6, in their repository",
            grade="A",
            seed=True,
            note="the paper's Table 6 repeats its table of MOSEI",
        ),
        Published(
            system="MulT",
            scores={"acc7": 39.1, "acc2_nonzero": 81.1, "f1_nonzero": 81.0, "mae": 0.889, "corr": 0.686},
            split="standard",
            source="the same correction",
            grade="A",
        ),
        Published(
            system="Self-MM, run again by MMSA",
            scores={"acc7": 46.67, "acc2_nonzero": 85.46, "mae": 0.708, "corr": 0.796},
            split="standard",
            source="MMSA, results table",
            grade="A",
        ),
        Published(
            system="UniMSE",
            scores={"acc7": 48.68, "acc2_nonzero": 86.90, "f1_nonzero": 86.42, "mae": 0.691},
            split="standard",
            source="a digest of arXiv 2608.16201",
            grade="B",
        ),
        Published(
            system="ITHP-DeBERTa",
            scores={"acc2_nonzero": 88.7, "f1_nonzero": 88.6, "mae": 0.643, "corr": 0.852},
            split="standard",
            source="several reviews of it (ICLR 2024)",
            grade="B",
            note="people in the same table: 85.7 / 87.5 / .710 / .820",
        ),
        Published(
            system="ChatGLM3-6B + MGSI",
            scores={"acc7": 49.15, "acc2_nonzero": 89.60, "f1_nonzero": 89.57, "mae": 0.603},
            split="standard",
            source="a digest of arXiv 2608.16201",
            grade="B",
        ),
        Published(
            system="MiSTER-E, speech and text",
            scores={"f1_nonzero": 87.9},
            split="not said in the abstract",
            source="abstract of arXiv 2602.23300",
            grade="A",
            note="a weighted F1; which of the three forms is not said",
        ),
    ),
)
