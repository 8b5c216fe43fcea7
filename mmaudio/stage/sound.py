"""The sound of a scene: modal synthesis of every contact, a small room, and a little background noise."""

import numpy as np

from .materials import FLOORS, TABLE
from .scene import Body, Scene, generator

FULL_SCALE = 0.55  # amplitude of a contact of loudness 1
PEAK = 0.95
STICK_BRIGHTNESS = 0.9  # a wooden stick against a bare hard floor
LN1000 = np.log(1000.0)  # a 60 dB decay is a factor of 1000


def render_audio(scene: Scene, sample_rate: int = 16000) -> np.ndarray:
    """Waveform (N,) float32 of a scene, N = round(duration * sample_rate), |sample| <= 0.95."""
    rng = generator(scene.seed, "sound")
    length = round(scene.duration * sample_rate)
    voices = [_Voice(body, scene.floor, sample_rate, rng) for body in scene.bodies]
    room = {"level": rng.uniform(0.08, 0.3), "t60": rng.uniform(0.12, 0.4), "tone": rng.uniform(0.2, 0.9)}
    hiss = {"decibel": rng.uniform(-62.0, -50.0), "slope": rng.uniform(0.2, 1.0)}
    hits = sorted((time, loudness, index) for index, body in enumerate(scene.bodies) for time, loudness in body.impacts)
    places = rng.standard_normal((len(hits), 16))  # where exactly it is touched decides the balance of the partials
    noise = generator(scene.seed, "noise")

    dry = np.zeros(length)
    for (time, loudness, index), place in zip(hits, places, strict=True):
        first = round(time * sample_rate)
        if first >= length:
            continue
        sound = voices[index].contact(loudness, place, noise)[: length - first]
        dry[first : first + len(sound)] += FULL_SCALE * loudness * sound
    audio = dry + _reverberation(dry, sample_rate, noise, **room) + _hiss(length, sample_rate, noise, **hiss)
    return np.clip(PEAK * np.tanh(audio / PEAK), -PEAK, PEAK).astype(np.float32)


class _Voice:
    """The partials of one object (K, N), computed once; a contact is one weighted sum of them."""

    def __init__(self, body: Body, floor: str, sample_rate: int, rng: np.random.Generator):
        material, below = TABLE[body.material], FLOORS[floor]
        ratios = np.array(material.ratios)
        spread = 1 + 0.03 * rng.standard_normal(16)[: len(ratios)]
        levels = np.exp(0.35 * rng.standard_normal(16)[: len(ratios)])
        damping = np.exp(0.15 * rng.standard_normal())
        spread[0] = 1
        self.sample_rate, self.material, self.struck = sample_rate, material, body.struck
        self.corner = material.contact_hz * (STICK_BRIGHTNESS if body.struck else below.brightness)
        hz = material.base_hz * 0.1 / (body.size * np.sqrt(body.aspect)) * ratios * spread
        t60 = material.t60 * damping * ratios**-material.damping_tilt
        gain = ratios**-material.rolloff * levels
        gain[0] *= 1.3
        tones = len(hz)
        if not body.struck:  # the floor answers too
            hz = np.append(hz, below.thud_hz * np.array([1, 1.9, 3.1]))
            t60 = np.append(t60, below.thud_t60 * np.array([1, 0.8, 0.6]))
            gain = np.append(gain, below.thud * np.array([1, 0.6, 0.4]) * gain.max())
        keep = hz < 0.45 * sample_rate
        self.is_tone = (np.arange(len(hz)) < tones)[keep]
        self.hz, self.gain = hz[keep], gain[keep]
        seconds = np.arange(int(sample_rate * min(1.1 * t60[keep].max() + 0.02, 2.5))) / sample_rate
        self.partials = np.exp(-LN1000 * seconds / t60[keep][:, None])
        self.partials *= np.sin(2 * np.pi * self.hz[:, None] * seconds)
        self.partials = self.partials.astype(np.float32)
        fade = min(len(seconds), sample_rate // 50)
        self.partials[:, len(seconds) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)

    def contact(self, loudness: float, place: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One contact (N,) with a peak of about 1: harder hits are brighter (a shorter contact)."""
        corner = self.corner * (0.35 + 0.65 * loudness)
        gain = self.gain / (1 + (self.hz / corner) ** 2)
        gain *= np.exp(0.25 * np.where(self.is_tone, place[: len(gain)], 0))
        sound = gain.astype(np.float32) @ self.partials
        sound /= np.abs(sound).max() + 1e-9
        burst = _burst(self.material.click_seconds, corner, self.sample_rate, rng)
        sound[: len(burst)] += self.material.click * burst[: len(sound)]
        return sound / (1 + 0.5 * self.material.click)


def _burst(seconds: float, corner: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A decaying burst of noise below the contact's corner frequency, peak 1."""
    length = int(sample_rate * (6 * seconds + 0.004))
    noise = rng.standard_normal(length) * np.exp(-np.arange(length) / (seconds * sample_rate))
    spectrum = np.fft.rfft(noise, 2 * length)
    hz = np.fft.rfftfreq(2 * length, 1 / sample_rate)
    noise = np.fft.irfft(spectrum / (1 + (hz / (1.5 * corner)) ** 2), 2 * length)[:length]
    return noise / (np.abs(noise).max() + 1e-9)


def _reverberation(dry, sample_rate, rng, level: float, t60: float, tone: float) -> np.ndarray:
    """The room's answer (N,): decaying noise, dull in the end, convolved with the dry sound."""
    length = int(t60 * sample_rate)
    seconds = np.arange(length) / sample_rate
    response = rng.standard_normal(length) * np.exp(-LN1000 * seconds / t60) * (1 - np.exp(-seconds / 0.008))
    smooth = np.fft.rfftfreq(length, 1 / sample_rate) / (1000 + 5000 * tone)
    response = np.fft.irfft(np.fft.rfft(response) / (1 + smooth**2), length)
    response *= level / (np.sqrt((response**2).sum()) + 1e-9)
    size = 1 << (len(dry) + length - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(response, size), size)[: len(dry)]


def _hiss(length: int, sample_rate: int, rng, decibel: float, slope: float) -> np.ndarray:
    """Steady noise (N,) at an RMS level in dBFS, with power falling as frequency ** -slope."""
    hz = np.maximum(np.fft.rfftfreq(length, 1 / sample_rate), 60.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * hz ** (-slope / 2), length)
    return noise * (10 ** (decibel / 20) / np.sqrt((noise**2).mean()))
