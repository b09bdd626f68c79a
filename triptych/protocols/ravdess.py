"""RAVDESS, speech part: 24 actors, two sentences, eight emotions, 1440 clips (96 neutral, 192 of each other).

Livingstone and Russo, PLoS ONE 13(5) e0196391, 2018. There is no official split: papers differ in theirs, so only
numbers over the same split (its hash is in the report) compare.
"""

from triptych.protocols.protocol import Protocol

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""In the order of the corpus's codes 01 to 08."""

RAVDESS = Protocol(
    name="ravdess",
    label="emotion",
    corpus_classes=EMOTIONS,
    note="RAVDESS speech (Livingstone and Russo 2018, CC BY-NC-SA 4.0); no official split, so compare over the same "
    "split only. Every sentence is said in every emotion: the words tell nothing.",
)
