"""The synthetic set of the demo: checks that the machinery works, says nothing about people."""

from triptych.protocols.protocol import Protocol

SYNTHETIC = Protocol(
    name="synthetic",
    label="emotion",
    corpus_classes=("neutral", "happy", "sad", "angry"),
    note="Made-up clips: these scores check the machinery and say nothing about people.",
)
