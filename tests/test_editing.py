"""Editing an existing sound: by calculus on toy velocities, and with the bundled weights."""

import numpy as np
import pytest
import soundfile
import torch

import mmaudio
from mmaudio import flow
from mmaudio.cli import demo
from mmaudio.editing import Edit, Given, given_sound, parse_spans, paste
from mmaudio.media import MediaError
from mmaudio.sequence import SPEC_16K

RATE = 44_100


@pytest.fixture(scope="module")
def pipe():
    return mmaudio.load("tiny_16k", device="cpu")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """2 s of stereo at another rate than the model's, 16 bits, with loud and quiet values."""
    path = tmp_path_factory.mktemp("sounds") / "in.wav"
    wave = np.random.default_rng(0).integers(-32768, 32768, (2 * RATE, 2), dtype=np.int16)
    soundfile.write(path, wave, RATE, subtype="PCM_16")
    return path


def draw(seed):
    return torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_kept_frames_follow_the_path_and_the_others_see_them(solver):
    x0, x1, kept = draw(0), draw(1)[:1].expand(2, -1, -1), torch.arange(10) < 4
    seen = []

    def velocity(t, x):
        seen.append((t.item(), x))
        return x.mean(1, keepdim=True).expand_as(x)  # what is new depends on what is kept

    x = flow.SOLVERS[solver](flow.holding(velocity, x0, x1, kept), x0, 4)
    torch.testing.assert_close(x[:, :4], x1[:, :4])
    for t, state in seen:
        torch.testing.assert_close(state[:, :4], ((1 - t) * x0 + t * x1)[:, :4])
    assert (x - flow.SOLVERS[solver](velocity, x0, 4))[:, 4:].abs().max() > 0.01


def test_a_flow_that_starts_later():
    def speed(t, x):
        return (3 * t**2).expand_as(x)

    x = torch.ones(1, 1, 1)
    assert flow.midpoint(flow.starting_at(speed, 0.5), x, 50).item() == pytest.approx(1 + 1 - 0.5**3, abs=1e-3)
    given, noise, data = Given(draw(2), torch.zeros(10, dtype=torch.bool), 0.25), draw(0), draw(1)
    torch.testing.assert_close(given.begin(noise, data), 0.25 * noise + 0.75 * data)
    assert [Given(draw(2), given.kept, s).steps(20) for s in (0.01, 0.6, 1.0)] == [1, 12, 20]


def test_pasting_fades_for_20_ms_inside_what_is_kept():
    rate, made, original = 8000, torch.full((1, 32_000), 0.5), torch.linspace(-1, 1, 16_000).repeat(2, 1)
    out = paste(made, 16_000, original, rate, [(0.0, 0.5), (1.0, 1.5)], 2.0)
    assert out.shape == (2, 16_000)
    fade = 160
    for first, last in ((0, 4000 - fade), (8000 + fade, 12_000 - fade)):
        assert torch.equal(out[:, first:last], original[:, first:last])
    inner = slice(4200, 7800)  # the resampler rings at the ends of the sound only
    assert (out[:, inner] - 0.5).abs().max() < 1e-3
    assert not torch.equal(out[:, 4000 - fade : 4000], original[:, 4000 - fade : 4000])
    assert out[:, 3800:8400].diff(dim=1).abs().max() < 2 * 1.5 / fade  # no click
    whole = paste(made, 16_000, original, rate, [(0.0, 2.0)], 2.0)
    assert torch.equal(whole, original)


def test_kept_spans_are_bit_identical_in_the_file(sound, tmp_path):
    arguments = ["--audio", str(sound), "--keep", "0-0.5,1-1.5", "--duration", "2.5", "--prompt", "wood"]
    assert demo([*arguments, "--output", str(tmp_path), "--variant", "tiny_16k", "--num_steps", "2"]) == 0
    before, _ = soundfile.read(sound, dtype="int16")
    after, rate = soundfile.read(tmp_path / "in_edited.flac", dtype="int16")
    assert (rate, after.shape) == (RATE, (round(2.5 * RATE), 2))
    fade = round(0.02 * RATE)
    assert np.array_equal(after[: RATE // 2 - fade], before[: RATE // 2 - fade])
    assert np.array_equal(after[RATE + fade : RATE * 3 // 2 - fade], before[RATE + fade : RATE * 3 // 2 - fade])
    gap = slice(RATE * 6 // 10, RATE)
    assert not np.array_equal(after[gap], before[gap])


def test_strength_from_the_codec_alone_to_plain_generation(pipe):
    wave = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    options = {"prompt": "wood", "num_steps": 2, "seed": 3}
    none, half, full = (pipe(edit=Edit((wave, 16_000), strength=s), **options)[0] for s in (0.0, 0.5, 1.0))
    plain = pipe(duration=1.0, **options)[0]
    assert torch.equal(full.audio, plain.audio)
    codec = pipe.part("codec")
    padded = torch.nn.functional.pad(wave, (0, 7 * 16_000))
    again = codec.decode(codec.encode(padded).mean)[0, :, :16_000]
    assert torch.equal(none.audio, again)
    far = (half.latents - none.latents).norm()
    assert 0 < far < (full.latents - none.latents).norm()


def test_words_about_wrong_edits(pipe, sound, tmp_path, capsys):
    for keep, says in (([(0, 0.05)], "at least 0.1"), ([(1, 0.5)], "1-0.5"), ([(0, 1), (0.5, 2)], "overlap")):
        with pytest.raises(ValueError, match=says):
            Edit(sound, keep)
    with pytest.raises(ValueError, match="strength"):
        Edit(sound, strength=1.5)
    with pytest.raises(ValueError, match=r"only 2\.000 s"):
        pipe(edit=Edit(sound, [(0, 3)]), duration=4.0)
    with pytest.raises(MediaError, match="no such file"):
        pipe(edit=Edit(tmp_path / "none.wav"))
    with pytest.raises(ValueError, match="over 30 s"):
        pipe(edit=Edit((torch.zeros(1, 31 * 8000), 8000)))
    assert parse_spans("0-2.5, 5-6") == [(0, 2.5), (5, 6)]
    for arguments, says in (
        (["--keep", "0-1"], "--audio"),
        (["--audio", str(sound), "--keep", "0-x"], "no span"),
        (["--audio", str(sound), "--keep", "0-1", "--lufs", "-16"], "leave one of them out"),
    ):
        assert demo([*arguments, "--output", str(tmp_path / "o"), "--variant", "tiny_16k"]) == 2
        assert says in capsys.readouterr().err


def test_a_sample_rate_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "odd.wav"
    soundfile.write(path, np.zeros(1000), 999_983)  # a prime: 16 GB of filters
    for audio, says in ((path, "odd.wav: 999983 Hz"), ((torch.zeros(1, 1000), 999_983), "the sound: 999983 Hz")):
        edit = Edit(audio)
        with pytest.raises(ValueError, match=f"{says} cannot be resampled to 16000 Hz"):
            given_sound(edit, *edit.read(), None, SPEC_16K)
