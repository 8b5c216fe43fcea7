"""What sounds: contacts of solid objects by modal synthesis, and the pieces that other sounds are made of."""

from dataclasses import dataclass

import numpy as np

from .materials import FLOORS, TABLE

STICK_BRIGHTNESS = 0.9  # a wooden stick against a bare hard floor
STICK = (1900.0, 0.045, 0.7)  # it ticks itself: Hz, seconds to fall by 60 dB, level relative to the object's tone
LN1000 = np.log(1000.0)  # a 60 dB decay is a factor of 1000
HIGHEST = 0.45  # of the sample rate: nothing sounds above
CREST = 3.6  # peak of noise relative to its RMS


@dataclass(frozen=True)
class Contacts:
    """All contacts of one object: a source.

    Its partials follow from material and size, their balance from where it is touched, their brightness from how hard.
    """

    name: str
    material: str
    size: float  # half-height in stage units
    aspect: float
    hits: tuple[tuple[float, float], ...]  # (time, loudness)
    floor: str | None = None  # what it falls on answers, too
    stick: bool = False  # a wooden stick strikes it, and is heard itself

    def render(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        voice = _Voice(self, sample_rate, rng)
        places = rng.standard_normal((len(self.hits), 16))
        dry = np.zeros(length)
        for (time, loudness), place in zip(self.hits, places, strict=True):
            add(dry, time, loudness * voice.contact(loudness, place, rng), sample_rate)
        return dry


class _Voice:
    """The partials of one object (K, N), computed once; a contact is one weighted sum of them."""

    def __init__(self, contacts: Contacts, sample_rate: int, rng: np.random.Generator):
        material = TABLE[contacts.material]
        below = None if contacts.floor is None else FLOORS[contacts.floor]
        ratios = np.array(material.ratios)
        spread = 1 + 0.03 * rng.standard_normal(16)[: len(ratios)]
        levels = np.exp(0.35 * rng.standard_normal(16)[: len(ratios)])
        damping = np.exp(0.15 * rng.standard_normal())
        spread[0] = 1
        self.sample_rate, self.material = sample_rate, material
        self.corner = material.contact_hz * (below.brightness if below else STICK_BRIGHTNESS)
        hz = material.base_hz * (0.1 / (contacts.size * np.sqrt(contacts.aspect))) ** 0.7 * ratios * spread
        t60 = material.t60 * damping * ratios**-material.damping_tilt
        gain = ratios**-material.rolloff * levels
        gain[0] *= 1.3
        tones = len(hz)
        other = (below.thud_hz, below.thud_t60, below.thud) if below else STICK if contacts.stick else None
        if other:
            low, fall, level = other
            hz = np.append(hz, low * np.array([1, 1.9, 3.1]))
            t60 = np.append(t60, fall * np.array([1, 0.8, 0.6]))
            level *= gain.max() * (1 + (low / self.corner) ** 2)  # heard however dull the contact is
            gain = np.append(gain, level * np.array([1, 0.6, 0.4]))
        keep = hz < HIGHEST * sample_rate
        self.is_tone = (np.arange(len(hz)) < tones)[keep]
        self.hz, self.gain = hz[keep], gain[keep]
        seconds = np.arange(int(sample_rate * min(1.1 * t60[keep].max(initial=0.0) + 0.02, 2.5))) / sample_rate
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
        noise = burst(self.material.click_seconds, corner, self.sample_rate, rng)
        sound[: len(noise)] += self.material.click * noise[: len(sound)]
        return sound / (1 + 0.5 * self.material.click)


def add(dry: np.ndarray, time: float, sound: np.ndarray, sample_rate: int) -> None:
    """Put a sound into `dry` so that it begins at `time`; what lies past the end is lost."""
    first = round(time * sample_rate)
    if first < len(dry):
        dry[first : first + len(sound)] += sound[: len(dry) - first]


def ring(hertz: np.ndarray, t60, gain: np.ndarray, sample_rate: int) -> np.ndarray:
    """Sines that die away together (N,), peak 1: frequencies, seconds to fall by 60 dB (one or each), levels."""
    t60 = np.broadcast_to(t60, np.shape(hertz))
    seconds = np.arange(int(sample_rate * 1.1 * np.max(t60)) + 1) / sample_rate
    sound = np.zeros(len(seconds))
    for hz, fall, level in zip(hertz, t60, gain, strict=True):
        if hz < HIGHEST * sample_rate:
            sound += level * np.exp(-LN1000 * seconds / fall) * np.sin(2 * np.pi * hz * seconds)
    return sound / (np.abs(sound).max() + 1e-9)


def burst(seconds: float, corner: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that falls by 1/e in `seconds`, below a corner frequency; peak 1."""
    length = int(sample_rate * (6 * seconds + 0.004))
    noise = rng.standard_normal(length) * np.exp(-np.arange(length) / (seconds * sample_rate))
    spectrum = np.fft.rfft(noise, 2 * length)
    hz = np.fft.rfftfreq(2 * length, 1 / sample_rate)
    noise = np.fft.irfft(spectrum / (1 + (hz / (1.5 * corner)) ** 2), 2 * length)[:length]
    return noise / (np.abs(noise).max() + 1e-9)


def band_noise(length: int, low: float, high: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Steady noise (length,) between two frequencies, with soft edges, RMS 1."""
    hz = np.fft.rfftfreq(length, 1 / sample_rate)
    shape = 1 / (1 + (low / np.maximum(hz, 1.0)) ** 4) / (1 + (hz / high) ** 4) * (hz < HIGHEST * sample_rate)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * shape, length)
    return noise / (np.sqrt((noise**2).mean()) + 1e-9)


def moving_noise(hertz: np.ndarray, bandwidth: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (N,) in a band whose centre follows `hertz` (N,), RMS 1; `bandwidth` is its half-width in Hz."""
    length = len(hertz)
    lines = min(int(3 * bandwidth * length / sample_rate) + 1, length // 2)  # of the spectrum, on either side of 0 Hz
    real, imaginary = rng.standard_normal((2, 2 * lines))
    lags = np.arange(lines) * (sample_rate / length / bandwidth)
    spectrum = np.zeros(length, complex)
    spectrum[:lines] = (real + 1j * imaginary)[:lines] * np.exp(-(lags**2))
    spectrum[length - lines :] = (real + 1j * imaginary)[lines:] * np.exp(-(lags[::-1] ** 2))
    noise = (np.fft.ifft(spectrum) * np.exp(2j * np.pi * np.cumsum(hertz) / sample_rate)).real
    return noise / (np.sqrt((noise**2).mean()) + 1e-9)


def contour(times, values, sample_rate: int, length: int) -> np.ndarray:
    """A curve through (time, value) points at every sample (length,); constant before the first and after the last."""
    return np.interp(np.arange(length) / sample_rate, times, values)


def follow(value, sample_rate: int, length: int, step: float = 0.02) -> np.ndarray:
    """A function of time at every sample (length,), worked out every `step` seconds."""
    grid = np.arange(0, length / sample_rate + 0.05, step)
    return contour(grid, value(grid), sample_rate, length)


def tone(hertz: np.ndarray, sample_rate: int, phase: float = 0.0) -> np.ndarray:
    """A sine (N,) whose frequency follows `hertz` (N,); silent where that is too high for the sample rate."""
    wave = np.sin(phase + 2 * np.pi * np.cumsum(hertz) / sample_rate)
    return wave * (hertz < HIGHEST * sample_rate)
