import numpy as np
import pytest
import torch

from mmaudio.evaluation.av_align import av_align, motion_peaks, peak_agreement
from mmaudio.media import MediaError
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

SEEDS = (2_000_043, 2_000_051)
SECONDS = 4.0


@pytest.fixture(scope="module")
def strikes(tmp_path_factory):
    """(video file, sound) of things that are struck, at 25 and at 12.5 frames per second."""
    folder, made = tmp_path_factory.mktemp("strikes"), {}
    for fps in (25, 12.5):
        for seed in SEEDS:
            clip = render_clip(seed, family="strike", duration=SECONDS, fps=fps, size=64)
            path = folder / f"{seed}_{fps}.mp4"
            write_mp4(path, clip)
            made.setdefault(fps, []).append((path, clip.audio, clip.sample_rate))
    return made


@pytest.mark.parametrize("fps", [25, 12.5])  # a slow video shows every frame twice, which is no motion
def test_true_sound_is_better_than_shifted_sound(strikes, fps):
    def mean(seconds):
        return np.mean([av_align(path, np.roll(a, round(seconds * rate)), rate) for path, a, rate in strikes[fps]])

    true = mean(0)
    assert true > 0.3
    assert true > 3 * mean(0.3)
    assert true > 3 * mean(0.5)


def test_sound_of_any_form_is_the_same_sound(strikes):
    path, audio, rate = strikes[25][0]
    score = av_align(path, torch.from_numpy(audio)[None].expand(2, -1), rate)
    assert 0 < score == av_align(path, audio, rate)
    longer = np.concatenate([audio, audio])  # what is beyond the video has no say
    assert av_align(path, longer, rate) == score
    assert av_align(path, np.zeros_like(audio), rate) == 0


def test_nothing_to_be_compared_by(tmp_path):
    still = render_clip(SEEDS[0], family="strike", duration=1.0, size=32, audio=False)
    still.video[:] = still.video[0]
    write_mp4(tmp_path / "still.mp4", still)
    assert np.isnan(av_align(tmp_path / "still.mp4", np.zeros(16_000), 16_000))


def test_unusable_input(tmp_path):
    for sound in (np.zeros(0), np.full(16_000, np.nan), np.zeros((2, 0))):
        with pytest.raises(ValueError, match="the sound is empty or holds values that are not finite"):
            av_align(tmp_path / "none.mp4", sound, 16_000)
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("none.mp4", "text.mp4"):
        with pytest.raises(MediaError, match=name):
            av_align(tmp_path / name, np.zeros(16_000), 16_000)


def test_motion_peaks_are_where_something_jumps():
    frames = torch.zeros(50, 1, 16, 16, dtype=torch.uint8)
    for k, reach in ((10, 8), (11, 2), (30, 6), (40, 1)):  # rows that light up at frame k and stay
        frames[k:, 0, :reach] += 50
    times = np.arange(50) / 25
    np.testing.assert_allclose(motion_peaks(frames, times), [0.4, 1.2, 1.6])
    assert len(motion_peaks(frames[:10], times[:10])) == 0


def test_agreement_is_intersection_over_union():
    motion = np.array([0.4, 1.2, 1.6])
    assert peak_agreement(motion, motion + 0.05) == 1
    assert peak_agreement(motion, motion + 0.07) == 0
    assert peak_agreement(motion, np.array([0.41, 0.43, 1.2])) == pytest.approx(2 / 4)  # one onset to a peak
    assert peak_agreement(motion, np.array([])) == 0
    assert np.isnan(peak_agreement(np.array([]), np.array([])))
