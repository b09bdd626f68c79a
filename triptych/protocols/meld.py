"""MELD: utterances of the series Friends in dialogues, seven emotions and three sentiments (Poria et al. 2019)."""

from dataclasses import replace

from triptych.protocols.leaks import Shared
from triptych.protocols.protocol import Protocol, Published, Target
from triptych.protocols.splits import Fold, SplitRule, own_split

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
"""In the order of the class indices of the corpus' baseline."""
SENTIMENTS = ("neutral", "positive", "negative")

OFFICIAL = SplitRule(
    name="meld/official",
    folds=(
        Fold(
            name="meld/official",
            place=own_split,
            shared=(Shared("speaker"), Shared("video")),
            note="the characters, and other dialogues of an episode, are in all splits: it does not tell how new "
            "people are met",
        ),
    ),
    published={"train": 9989, "valid": 1109, "test": 2610},
    source="the corpus' csv files, by dialogue; SSE-FT used 9,954 / 1,105 / 2,606",
)

MELD = Protocol(
    name="meld",
    targets=(Target(label="emotion", form=EMOTIONS),),
    metrics=("weighted F1", "WA", "UA"),
    select="weighted F1",
    splits=(OFFICIAL,),
    published=(
        Published(
            system="SSE-FT",
            scores={"WA": 64.3, "weighted F1": 63.9},
            split="official",
            source="Siriwardhana et al. 2020",
            grade="A",
            seed=True,
            note="its 'seven class weighted accuracy' read as the overall accuracy",
        ),
        Published(
            system="MiSTER-E, speech and text",
            scores={"weighted F1": 69.5},
            split="official",
            source="abstract of arXiv 2602.23300",
            grade="A",
        ),
        Published(
            system="BERT, MFCC and ResNet joined (2025)",
            scores={"WA": 73.56, "weighted F1": 72.54},
            split="not known",
            source="its abstract",
            grade="C",
            note="implausible beside tuned language models",
        ),
    ),
    note="MELD (Poria et al. 2019, GPL-3.0). AffectGPT's 55.65 is a hit rate and no accuracy.",
)
MELD_SENTIMENT = replace(
    MELD, name="meld_sentiment", targets=(Target(label="sentiment", form=SENTIMENTS),), published=()
)
