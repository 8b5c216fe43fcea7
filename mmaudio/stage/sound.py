"""The sound of a scene: its sources in a small room, and a little background noise."""

import numpy as np

from .scene import Scene, generator
from .voices import LN1000

FULL_SCALE = 0.55  # amplitude of a contact of loudness 1
PEAK = 0.95
UNSEEN = 0.6  # gain of what is out of sight
ROOM = "room"


def render_stems(scene: Scene, sample_rate: int = 16000) -> dict[str, np.ndarray]:
    """One waveform (N,) float32 per source with its share of the room's answer, and the room's own noise as the last.

    They add up to the sound of the scene, N = round(duration * sample_rate), |sample| <= 0.95.
    """
    length = round(scene.duration * sample_rate)
    rng, noise = generator(scene.seed, "sound"), generator(scene.seed, "noise")
    small = 0.35 if scene.setting.place != "room" else 1.0  # outdoors little comes back
    answer = _response(
        sample_rate, noise, rng.uniform(0.08, 0.3) * small, rng.uniform(0.12, 0.4), rng.uniform(0.2, 0.9)
    )
    hiss = _hiss(length, sample_rate, noise, rng.uniform(-62.0, -50.0), rng.uniform(0.2, 1.0))

    stems: dict[str, np.ndarray] = {}
    sources = [(source, 1.0) for act in scene.acts for source in act.sources]
    sources += [(source, UNSEEN) for act in scene.unseen for source in act.sources]
    for index, (source, gain) in enumerate(sources):
        dry = source.render(sample_rate, length, generator(scene.seed, "source", index))
        stems[_unused(source.name, stems)] = FULL_SCALE * gain * (dry + _convolve(dry, answer))
    stems[ROOM] = hiss
    loudest = np.abs(sum(stems.values())).max()
    scale = min(1.0, PEAK / loudest)  # together, so that the stems stay in proportion
    return {name: (scale * stem).astype(np.float32) for name, stem in stems.items()}


def mix(stems: dict[str, np.ndarray]) -> np.ndarray:
    """All stems together (N,) float32."""
    return np.clip(np.sum(list(stems.values()), axis=0), -PEAK, PEAK).astype(np.float32)


def _unused(name: str, taken) -> str:
    number = 2
    plain = name
    while name in taken or name == ROOM:
        name, number = f"{plain} {number}", number + 1
    return name


def _response(sample_rate: int, rng, level: float, t60: float, colour: float) -> np.ndarray:
    """What the room gives back of an impulse: decaying noise, dull in the end."""
    length = int(t60 * sample_rate)
    seconds = np.arange(length) / sample_rate
    response = rng.standard_normal(length) * np.exp(-LN1000 * seconds / t60) * (1 - np.exp(-seconds / 0.008))
    smooth = np.fft.rfftfreq(length, 1 / sample_rate) / (1000 + 5000 * colour)
    response = np.fft.irfft(np.fft.rfft(response) / (1 + smooth**2), length)
    return response * (level / (np.sqrt((response**2).sum()) + 1e-9))


def _convolve(dry: np.ndarray, response: np.ndarray) -> np.ndarray:
    size = 1 << (len(dry) + len(response) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(response, size), size)[: len(dry)]


def _hiss(length: int, sample_rate: int, rng, decibel: float, slope: float) -> np.ndarray:
    """Steady noise (N,) at an RMS level in dBFS, with power falling as frequency ** -slope."""
    hz = np.maximum(np.fft.rfftfreq(length, 1 / sample_rate), 60.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * hz ** (-slope / 2), length)
    return noise * (10 ** (decibel / 20) / np.sqrt((noise**2).mean()))
