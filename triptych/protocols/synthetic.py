"""The synthetic set of the demo: checks that the machinery works, says nothing about people."""

from triptych.protocols.protocol import Protocol, Target

SYNTHETIC = Protocol(
    name="synthetic",
    targets=(Target(label="emotion", form=("neutral", "happy", "sad", "angry")),),
    note="Made-up clips: these scores check the machinery and say nothing about people.",
)
