"""The voice and the face of a generated clip as arrays, and their mp4 and m4a files.

Legend: F picture frames at 25 fps, P pixels a side, S samples at 16 kHz, C control steps at 200 Hz, H harmonics.
Lengths are in units of the picture's side, y points down.

Everything that a linear model could read from an average (pitch, vocal tract, loudness, colouring of the channel,
skin, light, place and size of the face, resting mouth) varies widely by speaker and clip and says nothing of emotion.
Emotion shows in how pitch and energy move, and in the curvature and width of the mouth and the angle of the brows.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from shards.corpora.synthetic_script import Script, phones, rng

FPS, SAMPLE_RATE_HZ, CONTROL_HZ = 25, 16_000, 200
FRAME_PX = {"emotional": 96, "labelled": 96, "uniform": 64}

# Places in the face from its centre, in units of its radius.
JAW = (0.86, 1.18)
"""Half axes of the skin."""
EYE, EYE_SIZE = (0.4, -0.22), (0.19, 0.11)
"""Centre (mirrored for the left one) and half axes."""
BROW_Y, BROW_HALF_WIDTH, BROW_LIFT = -0.5, 0.27, 0.35
"""Height and half width of the brows, and how steep a lift of 1 is."""
MOUTH_Y, MOUTH_LEVEL = 0.55, 0.4
"""Height of the mouth, and the square of the place across it that no curve lifts or lowers."""

_UNIFORM_PEAK = 4.5
"""Above the peaks of the uniform kind before scaling (1.5 to 3.8 over a dozen clips), so that nothing is clipped."""

Floats = NDArray[np.floating]

# phone -> F1, F2, F3 in Hz, loudness, hiss, mouth opening, mouth width (relative to the resting mouth)
_PHONES = {
    "a": (800, 1250, 2600, 1.0, 0.0, 1.0, 1.0),
    "e": (530, 1850, 2500, 0.9, 0.0, 0.6, 1.15),
    "i": (290, 2300, 3000, 0.8, 0.0, 0.25, 1.3),
    "o": (480, 880, 2400, 0.9, 0.0, 0.75, 0.7),
    "u": (320, 680, 2250, 0.8, 0.0, 0.35, 0.5),
    "m": (250, 1100, 2100, 0.3, 0.0, 0.0, 0.95),
    "f": (350, 1000, 2200, 0.15, 0.3, 0.1, 0.9),
    "s": (320, 1700, 2600, 0.05, 0.9, 0.15, 1.1),
    "t": (350, 1700, 2700, 0.15, 0.5, 0.25, 1.0),
    "l": (370, 1250, 2500, 0.5, 0.0, 0.35, 0.95),
    "k": (400, 2000, 2400, 0.1, 0.4, 0.4, 1.0),
}

# emotion -> curvature of the mouth (+ = corners up), width, inner ends of the brows (+ = up), in units of intensity
_FACE = {
    "neutral": (0.0, 0.0, 0.0),
    "happy": (1.0, 0.18, 0.2),
    "sad": (-1.0, -0.05, 0.9),
    "angry": (-0.35, -0.25, -1.0),
}


def voice(script: Script, seed: int, speaker: str, key: str) -> Floats:
    """The clip's sound, [S] in -1 to 1: harmonics of the pitch, shaped by the phones' formants.

    The uniform kind (a margin around every word) gets digital silence between words: noise would be coded differently
    beside different words.
    """
    of_speaker, of_clip = rng(seed, "voice", speaker), rng(seed, "voice", key)
    pitch_hz = speaker_pitch_hz(seed, speaker) * of_clip.lognormal(0, 0.06)
    tract, tilt = of_speaker.uniform((0.85, 0.7), (1.18, 1.3))
    control_s, sound = _tracks(script)
    loudness, hiss = sound[:, 3], sound[:, 4]
    pitch, energy = _prosody(script, control_s, of_clip)
    f0_hz = pitch_hz * 2 ** (pitch / 12)
    num_harmonics = min(40, int(7600 / f0_hz.max()))
    harmonics_hz = f0_hz[:, None] * np.arange(1, num_harmonics + 1)  # [C, H]
    gains = np.zeros_like(harmonics_hz)
    for formant, (bandwidth_hz, weight) in enumerate(((90, 1.0), (130, 0.6), (200, 0.35))):
        distance = (harmonics_hz - sound[:, formant, None] * tract) / bandwidth_hz
        gains += weight / (1 + distance**2)
    gains *= (harmonics_hz / 500) ** -(0.35 * tilt) * (loudness * energy)[:, None]
    num_samples = round(script.duration_s * SAMPLE_RATE_HZ)
    phase = 2 * np.pi * np.cumsum(_upsample(f0_hz.astype(np.float32), num_samples).astype(np.float64)) / SAMPLE_RATE_HZ
    samples = np.zeros(num_samples, np.float32)
    for index, gain in enumerate(gains.T.astype(np.float32)):
        samples += _upsample(gain, num_samples) * np.sin((index + 1) * phase).astype(np.float32)
    noise = of_clip.standard_normal(num_samples).astype(np.float32)
    samples += 0.25 * np.diff(noise, prepend=np.float32(0)) * _upsample((hiss * energy).astype(np.float32), num_samples)
    if script.margin_s == 0:
        samples *= 0.35 / max(float(np.abs(samples).max()), 1e-6)
        samples = _channel(samples, of_clip)
    else:  # a constant: relative to the clip's peak, every word would tell how loud the loudest one is
        samples *= 0.35 / _UNIFORM_PEAK
    return np.clip(samples, -1, 1)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A clip's face before it is drawn; [F] over its frames, in units of the picture's side."""

    x: Floats
    """[F] centre of the face."""
    y: Floats
    radius: float
    """Half the width of the head; places in the face are relative to it."""
    brow: Floats
    """[F] how far the brows' inner ends are lifted, as a slope."""
    mouth_half_width: Floats
    mouth_opening: Floats
    """[F] half of it, in the middle."""
    mouth_curve: Floats
    """[F] how much higher the corners are than the middle."""
    lip_width: float
    skin: Floats
    """[3] red, green and blue, 0 to 1."""
    hair: Floats
    lip: Floats
    background: Floats
    light: float
    slope: Floats
    """[2] how the light changes from left to right and from top to bottom."""


def look(script: Script, seed: int, speaker: str, key: str) -> Look:
    """How the speaker looks and moves in a clip."""
    of_speaker, of_clip = rng(seed, "face", speaker), rng(seed, "face", key)
    frame_s = np.arange(round(script.duration_s * FPS)) / FPS
    control_s, sound = _tracks(script)
    opening = np.interp(frame_s, control_s, sound[:, 5])
    # A word's mouth width shows as much as the mouth is open: the closed mouth is the same between all words.
    widening = np.interp(frame_s, control_s, sound[:, 6])
    moving = script.margin_s == 0  # the uniform kind keeps its head still, so that nothing but words moves
    sway = np.stack([_sway(of_clip, frame_s, 0.012) for _ in range(5)]) * moving

    skin = of_speaker.uniform(0.45, 1.0) * of_speaker.uniform((0.85, 0.6, 0.45), (1.0, 0.8, 0.7))
    hair = skin * of_speaker.uniform(0.15, 0.7)
    lip = skin * of_speaker.uniform((0.75, 0.45, 0.45), (0.95, 0.7, 0.75))
    rest_curve, rest_brow = of_speaker.normal(0, 0.25, 2)
    rest_width, lip_width = of_speaker.uniform(0.1, 0.135), of_speaker.uniform(0.014, 0.024)
    radius = of_speaker.uniform(0.3, 0.38) * of_clip.uniform(0.92, 1.08)
    center = 0.5 + of_clip.uniform(-0.05, 0.05, 2)
    light, slope = of_clip.uniform(0.6, 1.15), of_clip.uniform(-0.6, 0.6, 2)
    background = of_clip.uniform(0.1, 0.8) + of_clip.uniform(-0.12, 0.12, 3)

    curve, width, brow = _FACE[script.emotion]
    strength = script.intensity * of_clip.lognormal(0, 0.2)
    curve = rest_curve + curve * strength + of_clip.normal(0, 0.1) + 8 * sway[2]
    brow = rest_brow + brow * strength + of_clip.normal(0, 0.2) + 6 * sway[3]
    return Look(
        x=center[0] + sway[0],
        y=center[1] + sway[1],
        radius=radius,
        brow=brow,
        mouth_half_width=rest_width * (1 + width * strength + widening) + sway[4],
        mouth_opening=opening * 0.075 * (radius / 0.34),
        mouth_curve=curve * 0.055,
        lip_width=lip_width,
        skin=skin,
        hair=hair,
        lip=lip,
        background=background,
        light=light,
        slope=slope,
    )


def face(look: Look, size_px: int) -> NDArray[np.uint8]:
    """The clip's frames, [F, P, P, 3] RGB."""
    radius = look.radius
    y, x = ((np.mgrid[:size_px, :size_px] + 0.5) / size_px).astype(np.float32)
    x_F, y_F = (place.astype(np.float32)[:, None, None] for place in (look.x, look.y))
    planes = np.empty((3, len(look.x), size_px, size_px), np.float32)
    planes[:] = look.background[:, None, None, None]
    _paint(planes, _ellipse(x - x_F, y - y_F + 0.08, radius, 1.3 * radius) * size_px, look.hair)
    _paint(planes, _ellipse(x - x_F, y - y_F, JAW[0] * radius, JAW[1] * radius) * size_px, look.skin)
    eyes = slice(round(0.18 * size_px), round(0.56 * size_px))
    _draw_eyes(planes[:, :, eyes], x[eyes] - x_F, y[eyes] - y_F, look)
    below = slice(round(0.5 * size_px), size_px)
    _draw_mouth(planes[:, :, below], x[below] - x_F, y[below] - y_F - MOUTH_Y * radius, look)
    shade = 1 + look.slope[0] * (x - 0.5) + look.slope[1] * (y - 0.5)
    planes *= (255 * look.light * shade).astype(np.float32)
    return np.ascontiguousarray(np.clip(planes, 0, 255, out=planes).astype(np.uint8).transpose(1, 2, 3, 0))


def speaker_pitch_hz(seed: int, speaker: str) -> float:
    """The pitch around which a speaker talks."""
    return float(np.exp(rng(seed, "pitch", speaker).uniform(np.log(85), np.log(250))))


def write_media(
    frames: NDArray[np.uint8], samples: Floats, video: Path, audio: Path | None, *, independent: bool
) -> None:
    """Write an mp4 (H.264) and an m4a (AAC), or both streams into the mp4.

    Args:
        frames: [F, P, Q, 3] RGB, even numbers of pixels.
        samples: [S] in -1 to 1.
        video: the mp4 to write.
        audio: the m4a to write; None puts the sound into the mp4.
        independent: code every frame by itself at a fixed quantiser, so that no frame tells of another one; without
            it, what a word's mouth leaves behind in predicted frames lasts until the next key frame.
    """
    with av.open(str(video), "w", format="mp4") as container:
        picture = container.add_stream("libx264", rate=FPS)
        picture.height, picture.width = frames.shape[1:3]
        picture.pix_fmt = "yuv420p"
        picture.time_base = Fraction(1, FPS)
        quality = {"qp": "20", "g": "1"} if independent else {"crf": "20"}
        picture.options = {"preset": "ultrafast", "threads": "1", **quality}
        sound = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono") if audio is None else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound is not None:
            _encode_sound(container, sound, samples)
    if audio is not None:
        with av.open(str(audio), "w", format="ipod") as container:
            _encode_sound(container, container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono"), samples)


def _encode_sound(container: av.container.OutputContainer, stream: av.AudioStream, samples: Floats) -> None:
    stream.bit_rate = 64_000
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _tracks(script: Script) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Control times [C] in seconds, and the columns of _PHONES at them [C, 7]; width is relative to the closed mouth.

    Loudness, hiss, opening and widening are zero outside of the words' intervals less their margins.
    """
    control_s = np.arange(round(script.duration_s * CONTROL_HZ) + 1) / CONTROL_HZ
    tracks = np.zeros((len(control_s), 7))
    tracks[:, :3] = 500, 1500, 2500
    for word in script.words:
        start_s, end_s = word.start_s + script.margin_s, word.end_s - script.margin_s
        steps = (control_s > start_s) & (control_s < end_s)
        spoken = np.array([_PHONES[phone] for phone in phones(word.text)])
        spoken[:, 6] -= 1
        # Each phone holds for 60 % of its share and glides to the next one.
        place = (control_s[steps] - start_s) / (end_s - start_s) * len(spoken)
        knots = (np.arange(len(spoken))[:, None] + [0.2, 0.8]).ravel()
        tracks[steps] = np.stack([np.interp(place, knots, column) for column in np.repeat(spoken, 2, axis=0).T], axis=1)
        ramp = np.minimum(1, np.minimum(control_s[steps] - start_s, end_s - control_s[steps]) / 0.04)
        tracks[steps, 3:] *= np.sin(ramp * np.pi / 2)[:, None] ** 2
    return control_s, tracks


def _prosody(
    script: Script, control_s: NDArray[np.float64], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How the emotion moves the voice: pitch in semitones around the speaker's, and energy as a factor, both [C]."""
    strength = script.intensity * generator.lognormal(0, 0.2)
    phase = generator.uniform(0, 2 * np.pi)
    within = np.zeros_like(control_s)  # -0.5 to 0.5 over a word
    for word in script.words:
        steps = (control_s >= word.start_s) & (control_s <= word.end_s)
        within[steps] = (control_s[steps] - word.start_s) / (word.end_s - word.start_s) - 0.5
    pitch = _sway(generator, control_s, 0.8) if script.margin_s == 0 else np.zeros_like(control_s)
    log_energy = np.zeros_like(control_s)
    if script.emotion == "happy":
        rate_hz = generator.uniform(8, 10)
        pitch += strength * 5 * within
        log_energy += strength * 0.9 * np.sin(2 * np.pi * rate_hz * control_s + phase)
    elif script.emotion == "sad":
        pitch -= strength * 5 * within
        log_energy -= strength * 2.5 * within
    elif script.emotion == "angry":
        rate_hz = generator.uniform(22, 27)
        pitch += strength * generator.normal(0, 0.5, len(control_s))
        log_energy += strength * 1.2 * np.sin(2 * np.pi * rate_hz * control_s + phase)
    if script.margin_s == 0:
        log_energy += 0.3 * np.sin(2 * np.pi * generator.uniform(1, 4) * control_s + phase)
    return pitch, np.exp(log_energy)


def _channel(samples: Floats, generator: np.random.Generator) -> Floats:
    """Microphone, room and level: a random smooth colouring of some +-8 dB, background noise, and loudness."""
    spectrum = np.fft.rfft(samples)
    noise = np.fft.rfft(generator.standard_normal(len(samples)))
    place = np.linspace(0, 1, len(spectrum))
    colour_db = np.interp(place**0.5, np.linspace(0, 1, 6), generator.normal(0, 6, 6))
    noise_db = np.interp(place**0.5, np.linspace(0, 1, 4), generator.normal(0, 5, 4))
    level = generator.uniform(0.001, 0.01)
    mixed = (spectrum + level * noise * 10 ** (noise_db / 20)) * 10 ** (colour_db / 20)
    sound = np.fft.irfft(mixed, len(samples))
    peak = 10 ** (generator.uniform(-22, -2) / 20)
    return (sound * peak / np.abs(sound).max()).astype(np.float32)


def _upsample(values: Floats, num_samples: int) -> Floats:
    """Control values [C] at every sample [S], linearly."""
    factor = SAMPLE_RATE_HZ // CONTROL_HZ
    ramp = np.arange(factor, dtype=np.float32) / factor
    between = values[:-1, None] + np.diff(values)[:, None] * ramp
    return between.ravel()[:num_samples]


def _sway(generator: np.random.Generator, times_s: NDArray[np.float64], amount: float) -> NDArray[np.float64]:
    """A slow movement: three sines of 0.2 to 1.5 Hz."""
    rates, phases = generator.uniform(0.2, 1.5, 3), generator.uniform(0, 2 * np.pi, 3)
    return amount * np.sin(2 * np.pi * rates * times_s[:, None] + phases).sum(axis=1)


def _paint(planes: Floats, depth_px: Floats, colour: Floats) -> None:
    """Blend a colour into planes [3, F, *, *] where `depth_px` (distance inside the shape's edge) is positive.

    Colours are the slowest axis: with the fastest one of length 3 this takes three times as long.
    """
    alpha = np.clip(depth_px + 0.5, 0, 1)
    for plane, value in zip(planes, colour.astype(np.float32)):
        plane += alpha * (value - plane)


def _ellipse(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    """Distance inside an ellipse's edge, to first order around it (a tenth of the time of the square root)."""
    return (1 - (x / half_width) ** 2 - (y / half_height) ** 2) * (min(half_width, half_height) / 2)


def _draw_eyes(planes: Floats, x: Floats, y: Floats, look: Look) -> None:
    """Eyes and brows; `x`, `y` [F, *, *] from the face's centre."""
    size_px, radius = planes.shape[-1], look.radius
    across = np.abs(x) - EYE[0] * radius  # both eyes at once: negative towards the nose
    for width, height, grey in ((*EYE_SIZE, 0.95), (0.085, 0.085, 0.1)):
        depth = _ellipse(across, y - EYE[1] * radius, width * radius, height * radius)
        _paint(planes, depth * size_px, np.full(3, grey))
    lift = look.brow.astype(np.float32)[:, None, None]
    line = y - BROW_Y * radius - BROW_LIFT * lift * across
    depth = np.minimum(0.045 * radius - np.abs(line), BROW_HALF_WIDTH * radius - np.abs(across))
    _paint(planes, depth * size_px, look.hair * 0.7)


def _draw_mouth(planes: Floats, x: Floats, y: Floats, look: Look) -> None:
    """Lips, teeth and the open mouth; `x`, `y` [F, *, *] from its middle."""
    size_px, lip_width = planes.shape[-1], look.lip_width
    of_mouth = (look.mouth_half_width, look.mouth_opening, look.mouth_curve)
    half_width, opening, curve = (values.astype(np.float32)[:, None, None] for values in of_mouth)
    u_squared = np.minimum((x / half_width) ** 2, 1.2)
    middle = y + curve * (u_squared - MOUTH_LEVEL)
    arch = np.sqrt(np.maximum(1 - u_squared, 0))
    side = (half_width - np.abs(x)) * size_px
    distance = np.abs(middle)
    _paint(planes, np.minimum((opening * arch + lip_width * (0.5 + 0.5 * arch) - distance) * size_px, side), look.lip)
    _paint(planes, np.minimum((opening * arch + 0.006 - distance) * size_px, side), np.array([0.15, 0.04, 0.05]))
    teeth = np.minimum(opening * arch - distance, -middle - 0.45 * opening)
    _paint(planes, np.minimum(teeth * size_px, side), np.array([0.9, 0.9, 0.85]))
