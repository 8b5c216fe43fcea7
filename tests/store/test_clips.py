"""Pieces of sound cut from media files for training."""

import numpy as np
import pytest
import torch

from mmaudio.data.clips import SOUND_SPAN, MediaClips, ReadSound, SoundBatch
from mmaudio.data.manifest import ManifestRow
from mmaudio.data.preparation import ClipError
from mmaudio.data.sampler import Item
from mmaudio.media import MediaError, write_audio


def ramp(tmp_path, seconds: float, rate: int = 16_000, name: str = "ramp.wav"):
    """A file whose sample at time t is t / 1000, with its negative half as loud beside it."""
    times = torch.arange(round(seconds * rate)) / rate / 1000
    return write_audio(tmp_path / name, torch.stack([3 * times, -times]), rate)


def first_times(path, count: int = 30, start: float = 0.0, seconds: float = 1.0) -> list[float]:
    read = ReadSound(16_000, round(seconds * 16_000))
    row = ManifestRow("a", path, start=start)
    return [1000 * read(row, np.random.default_rng(key))["wave"][0].item() for key in range(count)]


def test_pieces_come_from_everywhere_after_the_start(tmp_path):
    times = first_times(ramp(tmp_path, 10), start=4.0)
    assert 4 <= min(times) < 5
    assert 8 < max(times) <= 9.001
    assert times == first_times(tmp_path / "ramp.wav", start=4.0)


def test_a_long_file_is_read_in_part(tmp_path):
    path = ramp(tmp_path, SOUND_SPAN + 30, rate=8_000)
    assert max(first_times(path, count=10)) <= SOUND_SPAN - 1 + 0.001


def test_pieces_are_resampled_and_mono(tmp_path):
    piece = ReadSound(16_000, 8_000)(ManifestRow("a", ramp(tmp_path, 0.5, 44_100)), np.random.default_rng(0))["wave"]
    assert piece.shape == (8_000,)
    assert torch.allclose(piece[500:-500], torch.arange(8_000)[500:-500] / 16_000 / 1000, atol=1e-6)


def test_short_sounds_are_followed_by_silence(tmp_path):
    piece = ReadSound(16_000, 16_000)(ManifestRow("a", ramp(tmp_path, 0.25)), np.random.default_rng(0))["wave"]
    assert piece.shape == (16_000,)
    assert piece[3_999] > 0
    assert not piece[4_000:].any()


def test_batches_name_their_clips_and_depend_on_their_keys_alone(tmp_path):
    ramp(tmp_path, 5)
    (tmp_path / "clips.tsv").write_text("id\tpath\na\tramp.wav\nb\tramp.wav\n")
    clips = MediaClips([(str(tmp_path / "clips.tsv"), 1.0)], ReadSound(16_000, 1_000), SoundBatch)
    together = clips.__getitems__([Item(1, 5), Item(0, 6)])
    assert together.ids == ["b", "a"]
    assert torch.equal(together.wave[1:], clips.__getitems__([Item(0, 6)]).wave)


def test_what_cannot_be_read_is_one_line(tmp_path):
    def error_of(path, start=0.0, error=MediaError):
        with pytest.raises(error, match=path.name) as caught:
            ReadSound(16_000, 1_000)(ManifestRow("a", path, start=start), np.random.default_rng(0))
        assert "\n" not in str(caught.value)

    error_of(tmp_path / "none.wav")
    error_of(ramp(tmp_path, 1), start=2.0)
    error_of(write_audio(tmp_path / "odd.wav", torch.zeros(1, 99_991), 99_991), error=ClipError)
