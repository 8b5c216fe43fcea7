"""Windows over long videos: plans and joint velocities by calculus, seams, and one small video the whole way."""

import dataclasses
import math
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
import torch

import mmaudio
from mmaudio import flow
from mmaudio.cli import demo
from mmaudio.inputs import Inputs, read_inputs
from mmaudio.long import cross_fade, encode_windows, joint_velocity, plan, plan_video, vocode, window_frames
from mmaudio.media import read_video
from mmaudio.segments import Segment, Span, make_segments, read_prompts, scene_cuts
from mmaudio.sequence import SPEC_16K, SPEC_44K
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.variants import get_variant

LENGTH, OVERLAP = 40, 10


def coverage(windows):
    sums = torch.zeros(windows.total)
    for start, weight in zip(windows.starts, windows.weights, strict=True):
        assert 0 <= start <= windows.total - windows.length
        assert (weight >= 0).all()
        sums[start : start + windows.length] += weight
    return sums


@pytest.mark.parametrize("total", [40, 41, 69, 70, 71, 257, 1000])
def test_windows_cover_exactly_and_share_enough(total):
    windows = plan(total, LENGTH, OVERLAP)
    assert (windows.starts[0], windows.starts[-1] + LENGTH) == (0, total)
    assert all(0 < b - a <= LENGTH - OVERLAP for a, b in zip(windows.starts, windows.starts[1:], strict=False))
    assert len(windows.starts) == 1 + math.ceil((total - LENGTH) / (LENGTH - OVERLAP))
    torch.testing.assert_close(coverage(windows), torch.ones(total))


def test_segments_take_over_at_their_borders():
    segments = [(0, 25), (25, 150), (150, 153), (153, 200)]
    windows = plan(200, LENGTH, OVERLAP, segments, fade=4)
    torch.testing.assert_close(coverage(windows), torch.ones(200))
    share = torch.zeros(len(segments), 200)  # weight of each segment at every frame
    for start, owner, weight in zip(windows.starts, windows.segments, windows.weights, strict=True):
        share[owner, start : start + LENGTH] += weight
    for (begin, end), own in zip(segments, share, strict=True):
        assert (own[max(0, begin) + 4 : end - 4] > 0.999).all()
        assert own[: max(0, begin - 4)].sum() == own[end + 4 :].sum() == 0
    assert (share.diff(dim=1).abs() < 0.3).all()


def toy(windows, level):
    """A network whose window i wants the constant `level[i]`: its velocity leads every state there at time 1."""
    return lambda first, last: lambda t, x: (torch.tensor(level[first:last])[:, None, None] - x) / (1 - t)


def test_a_constant_velocity_carries_through_exactly():
    windows = plan(100, LENGTH, OVERLAP)
    drift = torch.randn(1, 100, 3, generator=torch.Generator().manual_seed(0))
    counted = []
    velocity = joint_velocity(
        windows, lambda first, last: lambda t, x: windows.cut(drift[0], first, last), at_once=2, tick=counted.append
    )
    x0 = torch.randn_like(drift)
    torch.testing.assert_close(flow.euler(velocity, x0, 3), x0 + drift)
    assert counted == [2, 1] * 3


def test_one_window_is_the_plain_solution():
    windows = plan(LENGTH, LENGTH, OVERLAP)
    x0 = torch.randn(1, LENGTH, 3, generator=torch.Generator().manual_seed(1))

    def velocity(t, x):
        return torch.sin(3 * x) + t

    assert torch.equal(flow.heun(joint_velocity(windows, lambda *_: velocity), x0, 5), flow.heun(velocity, x0, 5))


def test_no_step_at_seams_where_concatenation_has_one():
    windows, levels = plan(100, LENGTH, OVERLAP), [0.0, 6.0, -6.0]
    x0 = torch.randn(1, 100, 1, generator=torch.Generator().manual_seed(2))
    x = flow.euler(joint_velocity(windows, toy(windows, levels)), x0, 10)[0, :, 0]
    assert (x[[0, 50, 99]] - torch.tensor(levels)).abs().max() < 1e-4
    alone = flow.euler(toy(windows, levels)(0, 3), windows.cut(x0[0]), 10)[:, :, 0]
    joined = torch.cat([alone[0, :35], alone[1, 5:35], alone[2, 5:]])  # the windows end to end, cut in the overlaps
    assert joined.diff().abs().max() > 11.9
    assert x.diff().abs().max() < 12 * math.pi / 2 / OVERLAP  # the steepest of a raised cosine over the overlap


@pytest.mark.parametrize("spec", [SPEC_16K, SPEC_44K])
@pytest.mark.parametrize("duration", [0.5, 8.0, 12.01, 65.0, 600.0])
def test_plans_are_as_long_as_the_video(spec, duration):
    windows = plan_video(Inputs(None, None, spec, duration, windowed=True), make_segments(duration))
    frame = spec.mel_per_latent * spec.hop_length
    assert windows.length == spec.latent_len
    assert windows.total * frame >= round(duration * spec.sample_rate)
    assert duration < 8 or windows.total * frame - duration * spec.sample_rate < 2 * frame
    torch.testing.assert_close(coverage(windows), torch.ones(windows.total))


class Noise:
    """A vocoder without phases, as Griffin-Lim is at the worst: every piece is other noise of one level."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def vocode(self, mel):
        return torch.randn(1, 1, mel.shape[2] * SPEC_16K.hop_length, generator=self.generator)


class Exact:
    """A vocoder that does not depend on where its piece begins."""

    def vocode(self, mel):
        return mel[:, :1].repeat_interleave(SPEC_16K.hop_length, dim=2)


def test_vocoding_in_pieces_keeps_the_level_and_is_exact_where_pieces_agree():
    mel = torch.rand(1, 80, 1300, generator=torch.Generator().manual_seed(0))
    seen = []
    wave = vocode(Noise(), mel, SPEC_16K, lambda done, total: seen.append((done, total)))
    assert wave.shape == (1, 1, 1300 * 256)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    levels = wave.unfold(2, 3200, 1600).square().mean(-1).sqrt()
    assert 0.9 < levels.min() <= levels.max() < 1.1
    torch.testing.assert_close(vocode(Exact(), mel, SPEC_16K), Exact().vocode(mel))
    a = torch.ones(1, 1, 8)
    torch.testing.assert_close(cross_fade(a, a), a)
    assert cross_fade(0 * a, 0 * a).abs().max() == 0
    hum = torch.sin(torch.arange(8000) * 0.05)
    early, late = hum[:4000], hum[2000:6000]  # the same hum at another phase
    faded = torch.cat([early[:1000], cross_fade(early[1000:3000], late[1000:3000]), late[3000:]])
    steepest = hum.diff().abs().max()
    assert torch.cat([early[:2000], late[2000:]]).diff().abs().max() > 5 * steepest  # plain concatenation clicks
    assert faded.diff().abs().max() < 1.5 * steepest


def test_segments_from_prompts_and_cuts(tmp_path):
    table = tmp_path / "segments.csv"
    table.write_text(
        '\ufeffstart,end,prompt,negative_prompt\n12, 20,"rain, far",speech\n0,5,bells,\n', encoding="utf-8"
    )
    spans = read_prompts(table)
    assert spans == [Span(0, 5, "bells"), Span(12, 20, "rain, far", "speech")]
    (tmp_path / "s.yaml").write_text("- {start: 0, end: 5, prompt: bells}\n- {start: 12, end: 20, prompt: 'yes'}\n")
    assert [span.prompt for span in read_prompts(tmp_path / "s.yaml")] == ["bells", "yes"]
    assert make_segments(18.0, "wind", "music", spans, cuts=[0.4, 15.0, 15.5, 17.5]) == [
        Segment(0, 5, "bells", "music", (0, 15)),
        Segment(5, 12, "wind", "music", (0, 15)),
        Segment(12, 15, "rain, far", "speech", (0, 15)),
        Segment(15, 18, "rain, far", "speech", (15, 18)),
    ]
    with pytest.raises(ValueError, match="begins after the video"):
        make_segments(10.0, spans=spans)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start,end,prompt\n3,2,x\n", "row 2: 3 to 2 s"),
        ("start,end,prompt\n1,x,x\n", "end is 'x'"),
        ("start,end,prompt\n0,3,rain, far\n", "more cells"),
        ("start,end,prompt\n0,3,a\n2,4,b\n", "overlap"),
        ("start,end,text\n0,3,a\n", "unknown column 'text'"),
        ("start,end\n0,3\n", "no column 'prompt'"),
        ("start,end,prompt\n", "no row"),
    ],
)
def test_bad_prompt_files(tmp_path, text, says):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_prompts(tmp_path / "bad.csv")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """13.2 s of black that turn white at 8 s."""
    video = np.zeros((330, 64, 64, 3), np.uint8)
    video[200:] = 255
    clip = dataclasses.replace(render_clip(2_000_000, size=64, duration=1, audio=False), video=video)
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    write_mp4(path, clip)
    return path


def test_a_long_video_the_whole_way(long_clip, tmp_path):
    pipe, seen = mmaudio.load("tiny_16k", device="cpu"), []
    take = pipe(long_clip, "wood", num_steps=2, progress=lambda *told: seen.append(told))[0]
    assert take.audio.shape == (1, round(13.2 * 16_000))
    assert take.latents.shape == (413, 20)
    assert "13.2 s long" in take.notes[0]
    assert list(dict.fromkeys(stage for stage, *_ in seen)) == [
        "decode", "text", "conditions", "solve", "VAE", "vocoder"
    ]  # fmt: skip
    assert ("solve", 4, 4) in seen  # two windows, two steps
    video = take.save_video(tmp_path / "long.mp4")
    assert read_video(video.path).duration == pytest.approx(13.2, abs=0.05)

    class Cancelled(Exception):
        pass

    def stop(stage, done, total):
        if (stage, done) == ("decode", 1):
            raise Cancelled

    with pytest.raises(Cancelled):
        pipe(long_clip, num_steps=2, progress=stop)
    with pytest.raises(ValueError, match="whole video files"):
        pipe(long_clip, segments=[Span(0, 2, "x")], duration=3.0)


def test_windows_see_their_own_scene_only(long_clip):
    pipe = mmaudio.Pipeline("tiny_16k", device="cpu")
    inputs = Inputs(None, None, pipe.variant.spec, 13.2, long_clip, windowed=True)
    whole = window_frames(pipe, inputs, 4.0, (0.0, 13.2))
    assert whole.clip.shape[0] == 64
    assert (whole.clip[:31] < 30).all()
    assert (whole.clip[33:] > 225).all()
    dark, light = (window_frames(pipe, inputs, 4.0, scene) for scene in ((0.0, 7.9), (8.1, 13.2)))
    assert max(dark.clip.max(), dark.sync.max()) < 30
    assert min(light.clip.min(), light.sync.min()) > 225
    assert (len(dark.clip), len(light.sync)) == (64, 200)


def test_low_memory_gives_the_same_features(long_clip):
    inputs = Inputs(None, None, SPEC_16K, 9.0, long_clip, windowed=True)
    parts = make_segments(9.0)
    windows = plan_video(inputs, parts)
    pipes = [mmaudio.Pipeline("tiny_16k", device="cpu", low_memory=low) for low in (False, True)]
    usual, low = (encode_windows(pipe, inputs, windows, parts) for pipe in pipes)
    assert len(usual) == 2
    for one, other in zip(usual, low, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert list(pipes[1]._parts) == ["sync"]


def test_scene_cuts(long_clip):
    pytest.importorskip("scenedetect")
    assert scene_cuts(long_clip) == pytest.approx([8.0], abs=0.05)


def half_a_second():
    clip = render_clip(2_000_000, size=64, duration=1, fps=24, audio=False)
    return dataclasses.replace(clip, video=clip.video[:12])


@pytest.mark.parametrize(("name", "seconds"), [("tiny_16k", 8.0), ("small_44k", 0.64)])
def test_half_a_second_is_lengthened_for_the_network_alone(name, seconds, tmp_path):
    write_mp4(tmp_path / "ball.mp4", half_a_second())
    inputs = read_inputs(get_variant(name), tmp_path / "ball.mp4")
    assert (inputs.duration, inputs.spec.duration) == (0.5, seconds)
    assert (len(inputs.clip), len(inputs.sync)) == (inputs.spec.clip_len, inputs.spec.sync_frames)
    assert read_inputs(get_variant(name), duration=0.5).spec.duration == seconds


def test_parts_of_a_short_video_from_the_command_line(tmp_path, capsys):
    write_mp4(tmp_path / "ball.mp4", half_a_second())
    (tmp_path / "words.csv").write_text("start,end,prompt\n0,0.3,wood\n")
    arguments = ["--video", str(tmp_path / "ball.mp4"), "--prompts", str(tmp_path / "words.csv")]
    arguments += ["--split_scenes"] if find_spec("scenedetect") else []
    options = ["--variant", "tiny_16k", "--num_steps", "1", "--output", str(tmp_path / "out")]
    assert demo([*arguments, *options]) == 0
    assert "in overlapping windows of 8 s" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "out" / "ball.flac").frames == 8000
    (tmp_path / "words.csv").write_text("start,end,prompt\n4,5,wood\n")
    assert demo([*arguments, *options, "--overwrite"]) == 2
    assert "begins after the video" in capsys.readouterr().err
