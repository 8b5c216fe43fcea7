"""Sounds for a set: the same in any batch, kept once they are made, and what fails is said."""

import pytest

import mmaudio
from mmaudio.codec.mel import MEL_16K, MelSpectrogram
from mmaudio.data.parts import ExtractionError
from mmaudio.evaluation.datasets import Clip
from mmaudio.evaluation.generating import Generating, Sampling
from mmaudio.media import read_audio

SAMPLING = Sampling(duration=2.0, num_steps=1)


@pytest.fixture(scope="module")
def pipe():
    return mmaudio.load("tiny_16k", device="cpu")


def test_a_sound_does_not_depend_on_its_batch(pipe, tmp_path):
    clips = [Clip("a", "a bell rings"), Clip("b", ""), Clip("c", "rain"), Clip("d", "steps", tmp_path / "gone.mp4")]
    alone = Generating(pipe, clips[2:3], tmp_path / "alone", SAMPLING)
    list(alone.run(clips[2:3]))
    together = Generating(pipe, clips, tmp_path / "together", SAMPLING)
    assert together.unfinished() == {"a", "b", "c", "d"}
    assert len(list(together.run(clips, batch_size=2))) == 4
    assert together.unfinished() == set()
    assert list(together.failures()) == ["d"]
    assert "no such file" in together.failures()["d"]
    (one, rate), (other, _), (bell, _) = map(
        read_audio, [alone.path(clips[2]), together.path(clips[2]), together.path(clips[0])]
    )
    assert one.shape == other.shape == (1, 2 * rate)
    # Rounding differs in a batch, and the tiny variant's vocoder makes other phases of it: what is heard is compared.
    mel = MelSpectrogram(MEL_16K)
    assert (mel(one) - mel(other)).abs().mean() < 0.05 * (mel(one) - mel(bell)).abs().mean()

    made = together.path(clips[0]).stat().st_mtime_ns
    again = Generating(pipe, [Clip("a", "a bell rings"), Clip("b", "now with words")], tmp_path / "together", SAMPLING)
    assert again.unfinished() == {"b"}
    list(again.run(again.clips))
    assert again.unfinished() == set()
    assert together.path(clips[0]).stat().st_mtime_ns == made
    with pytest.raises(ExtractionError, match="num_steps"):
        Generating(pipe, clips, tmp_path / "together", Sampling(duration=2.0, num_steps=2))
