"""What happens between the scene and the file: shutter, focus, exposure, colour, grain, compression."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

TONES = 1024  # entries of the tone curve


@dataclass(frozen=True)
class Lens:
    """One recording device."""

    shutter: float  # seconds that the moving things are exposed, 0: an instant
    colours: np.ndarray  # (3, 3): exposure, tint and saturation
    lift: float
    gamma: float
    drift: tuple[float, float, float]  # slow change of exposure: amplitude, hertz, phase
    flicker: float
    blur: float  # weight of the neighbours, 0 for none
    coarse: bool  # half the resolution
    levels: int  # 0 for no quantisation
    noise: float
    coloured: bool  # noise of its own in every channel
    vignette: float
    crf: int  # H.264 quality (high is bad), 0 for no compression

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Lens":
        exposure = rng.uniform(0.78, 1.2)
        saturation = rng.uniform(0.65, 1.25)
        gain = exposure * (1 + rng.uniform(-0.07, 0.07, 3))
        colours = (saturation * np.eye(3) + (1 - saturation) / 3) * gain
        return cls(
            shutter=float(rng.uniform(0.01, 0.02) if rng.random() < 0.35 else 0.0),
            colours=colours.astype(np.float32),
            lift=float(rng.uniform(-0.06, 0.06) + 0.4 * (1 - exposure)),
            gamma=float(rng.uniform(0.8, 1.25)),
            drift=(float(rng.uniform(0, 0.06)), float(rng.uniform(0.03, 0.15)), float(rng.uniform(0, 6.3))),
            flicker=float(rng.uniform(0, 0.012)),
            blur=float(rng.choice([0.0, 0.12, 0.22], p=[0.5, 0.3, 0.2])),
            coarse=bool(rng.random() < 0.06),
            levels=int(rng.choice([0, 32, 48], p=[0.88, 0.06, 0.06])),
            noise=float(rng.uniform(0.005, 0.035) if rng.random() < 0.7 else 0.0),
            coloured=bool(rng.random() < 0.5),
            vignette=float(rng.uniform(0.1, 0.4) if rng.random() < 0.4 else 0.0),
            crf=int(rng.integers(26, 36)) if rng.random() < 0.3 else 0,
        )

    def exposures(self, time: float, fps: float) -> tuple[float, ...]:
        """The instants whose mean is the frame at `time`: even about it, so that a contact stays in its frame."""
        if not self.shutter:
            return (time,)
        open_for = min(self.shutter, 1 / fps)
        return tuple(max(time + share * open_for, 0.0) for share in (-0.375, -0.125, 0.125, 0.375))


class Film:
    """Applies a lens to frames; grain is cut at random places from a pool drawn once."""

    def __init__(self, lens: Lens, rng: np.random.Generator, height: int, width: int):
        self.lens = lens
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
        self.fall_off = (1 - 0.5 * lens.vignette * (x * x + y * y)).astype(np.float32)[..., None]
        self.shifts = rng.integers(0, 32, (4096, 2))
        pool = rng.standard_normal((height + 32, width + 32, 3 if lens.coloured else 1), np.float32)
        self.pool = pool * np.float32(lens.noise)
        table = np.linspace(0, 1, TONES) ** lens.gamma
        if lens.levels:
            table = np.round(table * lens.levels) / lens.levels
        self.table = np.round(255 * table).astype(np.uint8)  # a look-up: a power per pixel is slow

    def develop(self, image: np.ndarray, index: int, time: float) -> np.ndarray:
        """One frame (H, W, 3) uint8 of a picture that it may write over."""
        lens = self.lens
        height, width = image.shape[:2]
        if lens.coarse and height % 2 == 0 and width % 2 == 0:
            small = image.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
            image = small.repeat(2, axis=0).repeat(2, axis=1)
        if lens.blur:
            side = np.float32(lens.blur)
            image[1:-1] = image[1:-1] * (1 - 2 * side) + side * (image[:-2] + image[2:])
            image[:, 1:-1] = image[:, 1:-1] * (1 - 2 * side) + side * (image[:, :-2] + image[:, 2:])
        amplitude, hertz, phase = lens.drift
        exposure = 1 + amplitude * np.sin(2 * np.pi * hertz * time + phase) + lens.flicker * np.sin(7.0 * time)
        image = image @ (lens.colours * np.float32(exposure))
        if lens.vignette:
            image *= self.fall_off
        image += np.float32(lens.lift)
        if lens.noise:
            y, x = self.shifts[index % len(self.shifts)]
            image += self.pool[y : y + height, x : x + width]
        image *= TONES - 1
        return self.table[np.clip(image, 0, TONES - 1, out=image).astype(np.intp)]


def compress(frames: np.ndarray, fps: float, crf: int) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 after H.264 and back, each at its own time. One thread: the same on every machine."""
    import av

    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *even.shape[1:3], "yuv420p"
    encoder.framerate = Fraction(fps).limit_denominator(1001)
    encoder.time_base = 1 / encoder.framerate
    encoder.options = {"crf": str(crf), "preset": "ultrafast"}
    decoder = av.CodecContext.create("h264", "r")
    encoder.thread_count = decoder.thread_count = 1
    shown = []

    def take(packets) -> None:
        for packet in packets:
            shown.extend(frame.to_ndarray(format="rgb24") for frame in decoder.decode(packet))

    for index, image in enumerate(even):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = index
        take(encoder.encode(frame))
    take([*encoder.encode(None), None])
    return np.stack(shown)[:, :height, :width]
