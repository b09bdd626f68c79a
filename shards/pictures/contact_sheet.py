"""The contact sheet: frames, what encoders are given of them, sound, words and labels of a few clips on one axis.

Whether they line up is seen at a glance, and by no test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would look for a display
from matplotlib.ticker import MaxNLocator

from shards.counts import offsets
from shards.media.decode import DecodeError, audio_of, decode_audio, decode_video, video_of
from shards.reading.npy import from_bytes
from shards.record import ClipRecord, Word
from triptych.labels import CLASS, form_of, form_of_numbers

NUM_FRAMES = 10
SLACK_S = 0.1
SAMPLE_RATE_HZ = 16000
WIDTH, TITLE, AXIS = 14.0, 0.35, 0.55
"""Inches: of the sheet, of a clip's title, and of the ticks under it."""
HEIGHTS = {"frames": 1.6, "crops": 1.6, "sound": 0.9, "words": 0.6, "series": 1.1}
"""Inches of each panel."""
CROPS = ("faces", "face_crops")
"""Stored features that are pictures."""
MAX_LINES = 3
LETTER = 0.0066
"""Of the sheet's width."""


@dataclass(frozen=True)
class Clip:
    """One clip of the sheet."""

    record: ClipRecord
    members: Mapping[str, bytes]


def contact_sheet(clips: Sequence[Clip]) -> Figure | None:
    """What there is of frames, sound, words and series of each clip, under one axis in seconds.

    A panel that no clip has anything for is not drawn; None where that leaves none.
    """
    panels = _panels(clips)
    if not panels:
        return None
    height = TITLE + AXIS + sum(HEIGHTS[panel] for panel in panels)
    figure = Figure(figsize=(WIDTH, height * len(clips)), dpi=100, layout="constrained")
    for part, clip in zip(figure.subfigures(len(clips), 1, squeeze=False)[:, 0], clips, strict=True):
        part.suptitle(_title(clip), fontsize=10)
        ratios = [HEIGHTS[panel] for panel in panels]
        axes = part.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, axis in zip(panels, axes, strict=True):
            axis.set_yticks([])
            DRAW[panel](axis, clip)
        axes[-1].set_xlim(0, max(clip.record.duration_s, SLACK_S))
        axes[-1].set_xlabel("seconds")
        for panel, axis in zip(panels, axes, strict=True):  # where a word starts is read off all but the frames
            if panel != "frames":
                for word in clip.record.words or ():
                    axis.axvline(word.start_s, color="0.75", linewidth=0.6, zorder=0)
    return figure


def _panels(clips: Sequence[Clip]) -> list[str]:
    records = [clip.record for clip in clips]
    there = {
        "frames": any(record.has_video for record in records),
        "crops": any(_crops(clip) is not None for clip in clips),
        "sound": any(record.has_audio for record in records),
        "words": any(record.words for record in records),
        "series": any(_series(record) for record in records),
    }
    return [panel for panel, drawn in there.items() if drawn]


def _series(record: ClipRecord) -> list[str]:
    """The labels of the clip that are series."""
    short = (CLASS, form_of_numbers(None))
    return [name for name, value in record.labels.items() if form_of(value) not in short]


def _title(clip: Clip) -> str:
    record = clip.record
    series = _series(record)
    labels = [
        f"{name}: {value if isinstance(value, str) else f'{value:.3g}'}"
        for name, value in record.labels.items()
        if name not in series
    ]
    about = [record.key, f"speaker {record.speaker}", record.split, f"{record.duration_s:.2f} s", ", ".join(labels)]
    if lags := offsets.of_clip(record, clip.members):
        about.append("sound after " + ", ".join(f"{beside} {seconds:+.2f} s" for beside, seconds in lags.items()))
    return "   ".join(about)


def _draw_frames(axis: Axes, clip: Clip) -> None:
    data = video_of(clip.members)
    # a clip is as long as its longer stream: without the slack, a picture 10 ms shorter than its sound loses a frame
    step_s = max(clip.record.duration_s - SLACK_S, SLACK_S) / NUM_FRAMES
    try:
        frames = None if data is None else decode_video(data, 1 / step_s)
    except DecodeError as error:
        _say(axis, str(error))
        return
    if frames is None:
        _say(axis, "no picture")
        return
    for step, frame in enumerate(frames):  # a frame's left edge is its time
        axis.imshow(frame, extent=(step * step_s, (step + 0.96) * step_s, 0, 1), aspect="auto")
    axis.set_ylim(0, 1)


def _crops(clip: Clip) -> np.ndarray | None:
    """[T, H, W] or [T, H, W, 3]: the pictures that an encoder is given, where the set stores them."""
    content = next((clip.members[f"{name}.npy"] for name in CROPS if f"{name}.npy" in clip.members), None)
    return None if content is None else from_bytes(content)


def _draw_crops(axis: Axes, clip: Clip) -> None:
    crops = _crops(clip)
    if crops is None or not len(crops):
        _say(axis, "no crops")
        return
    step_s = max(clip.record.duration_s - SLACK_S, SLACK_S) / NUM_FRAMES
    # as wide as high in inches, so that what an encoder sees squashed is seen squashed
    wide_s = HEIGHTS["crops"] * clip.record.duration_s / WIDTH
    for step in range(NUM_FRAMES):  # a crop's left edge is its time, as a frame's
        crop = crops[min(len(crops) - 1, round(step * step_s / clip.record.duration_s * len(crops)))]
        extent = (step * step_s, step * step_s + min(0.96 * step_s, wide_s), 0, 1)
        axis.imshow(crop, extent=extent, aspect="auto", cmap="gray", vmin=0, vmax=255)
    axis.set_ylim(0, 1)


def _draw_sound(axis: Axes, clip: Clip) -> None:
    data = audio_of(clip.members)
    try:
        samples = None if data is None else decode_audio(data, SAMPLE_RATE_HZ)
    except DecodeError as error:
        _say(axis, str(error))
        return
    if samples is None:
        _say(axis, "no sound")
        return
    axis.plot(np.arange(len(samples)) / SAMPLE_RATE_HZ, samples, linewidth=0.4, color="tab:blue")
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-3)
    axis.set_ylim(-peak, peak)


def _draw_words(axis: Axes, clip: Clip) -> None:
    record = clip.record
    axis.set_ylim(0, 1)
    if not record.words:
        _say(axis, "no transcript" if record.words is None else "nothing spoken")
        return
    lines = _lines(record.words, record.duration_s)
    number = 1 + max(lines)
    for word, line in zip(record.words, lines, strict=True):
        top = 1 - line / number
        axis.axvspan(word.start_s, word.end_s, top - 0.95 / number, top - 0.05 / number, color="tab:orange", alpha=0.35)
        middle = (word.start_s + word.end_s) / 2
        size = 9 if number < MAX_LINES else 8
        axis.text(middle, top - 0.5 / number, word.text, ha="center", va="center", fontsize=size, clip_on=True)


def _lines(words: Sequence[Word], duration_s: float) -> list[int]:
    """The line that each word is written on, so that neighbours do not cover each other while there is room."""
    ends = [-1.0] * MAX_LINES
    lines = []
    for word in words:
        middle, half = (word.start_s + word.end_s) / 2, len(word.text) * LETTER * duration_s / 2
        free = [line for line in range(MAX_LINES) if ends[line] <= middle - half]
        line = free[0] if free else int(np.argmin(ends))
        ends[line] = middle + half
        lines.append(line)
    return lines


def _draw_series(axis: Axes, clip: Clip) -> None:
    names = _series(clip.record)
    if not names:
        _say(axis, "no series")
        return
    for name in names:
        series = clip.record.labels[name]
        times = np.arange(len(series["values"])) / series["rate_hz"]
        axis.plot(times, series["values"], linewidth=1.2, label=name)
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.legend(loc="best", fontsize=8, ncols=len(names), framealpha=0.8)


def _say(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color="0.4")


DRAW = {
    "frames": _draw_frames,
    "crops": _draw_crops,
    "sound": _draw_sound,
    "words": _draw_words,
    "series": _draw_series,
}
"""Panel -> what draws a clip's into axes whose x is seconds."""
