"""The command line as a user meets it: what is written, what is said, and how bad input ends."""

import errno
import os
import pickle
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
import torch

from mmaudio.cli import demo, main
from mmaudio.generate_command import DemoConfig, demo_config, split_overrides, with_words
from mmaudio.jobs import plan_jobs, targets
from mmaudio.media import probe, read_audio
from mmaudio.model.network import SIZES, MMAudio
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.weights import BUNDLED_DIR, save_safetensors

FAST = ["--variant", "tiny_16k", "--num_steps", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "ball.mp4"
    write_mp4(path, render_clip(2_000_000, size=96, duration=2))
    return path


def encode(path, frames, rate=25, codec="libx264"):
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            image = np.full((48, 64, 3), (i * 7) % 256, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(video=0) if p.size]


def files(folder):
    return sorted(p.name for p in folder.rglob("*")) if folder.exists() else []


def one_error_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def test_video_in_video_out(clip, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        demo(["--video", str(clip), "--prompt", "rain, it's (loud) a[1]=x ${nothing} ???", "--output", str(out), *FAST])
        == 0
    )
    captured = capsys.readouterr()
    assert captured.out.split() == [str(out / "ball.flac"), str(out / "ball.mp4")]
    assert "tiny_16k" in captured.err
    assert packets(out / "ball.mp4") == packets(clip)
    info = probe(out / "ball.mp4")
    sound, rate = read_audio(out / "ball.mp4")
    assert abs(sound.shape[1] / rate - info.duration) <= 1024 / rate
    flac, rate = soundfile.read(out / "ball.flac")
    assert abs(len(flac) / rate - info.duration) <= 1024 / rate
    assert 1e-4 < np.abs(flac).max() <= 1


HEAVY = {
    "torch._dynamo", "torch._inductor", "sympy", "triton", "torchvision", "open_clip", "timm", "transformers", "hydra",
    "huggingface_hub.file_download", "bigvgan", "librosa", "scipy", "matplotlib", "tensordict", "tensorboard",
}  # fmt: skip


def test_the_bundled_model_does_without_heavy_packages(clip, tmp_path):
    """Each of them takes as long to import as a stage of the work takes."""
    code = "import sys; from mmaudio.cli import demo; print(demo(sys.argv[1:])); print(*sys.modules)"
    arguments = ["--video", str(clip), "--prompt", "wood", "--num_steps", "1", "--output", str(tmp_path / "o")]
    elsewhere = {"MMAUDIO_WEIGHTS": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | elsewhere, capture_output=True, text=True, check=True
    )
    *paths, code, modules = done.stdout.splitlines()
    assert (len(paths), code) == (2, "0"), done.stderr
    assert not HEAVY & set(modules.split())


def test_help_waits_for_no_package():
    code = "import sys; from mmaudio.cli import main; sys.modules['torch'] = None; main(['--help'])"
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)


def test_settings_are_the_same_with_and_without_hydra():
    assert demo_config(Namespace(overrides=[])) == with_words([])
    assert demo_config(Namespace(overrides=["seed=7"])) == replace(with_words([]), seed=7)


def test_refuses_to_overwrite(clip, tmp_path, capsys):
    (tmp_path / "ball.flac").write_text("precious")
    arguments = ["--video", str(clip), "--output", str(tmp_path), *FAST]
    assert demo(arguments) == 2
    assert "--overwrite" in one_error_line(capsys)
    assert (tmp_path / "ball.flac").read_text() == "precious"
    assert demo([*arguments, "--overwrite", "--skip_video_composite"]) == 0
    assert files(tmp_path) == ["ball.flac"]
    assert soundfile.info(tmp_path / "ball.flac").samplerate == 16_000


def test_words_alone_several_samples_and_hydra_words(tmp_path, capsys):
    out = tmp_path / "o"
    arguments = ["--prompt", "Glass, breaking!", "--duration", "1", "--num_samples", "2", "--output", str(out)]
    assert demo([*arguments, "--variant", "tiny_16k", "num_steps=1", "seed=7"]) == 0
    assert files(out) == ["glass_breaking_1.flac", "glass_breaking_2.flac"]
    assert "seed 7" in capsys.readouterr().err


def test_hydra_words_may_stand_anywhere():
    readme = ["--video", "clip.mp4", "num_steps=50", "solver=heun"]
    assert split_overrides(readme) == (["--video", "clip.mp4"], ["num_steps=50", "solver=heun"])
    assert split_overrides(["seed=1", "--prompt", "a=b", "num_steps=2"]) == (
        ["--prompt", "a=b"],
        ["seed=1", "num_steps=2"],
    )
    assert split_overrides(["--overwrite", "seed=1"]) == (["--overwrite"], ["seed=1"])


def test_equal_names_get_numbers(tmp_path):
    for name in ("a/clip.mp4", "b/clip.mp4", "c/clip_2.mp4", "d/Clip.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    videos = [str(tmp_path / d) for d in "abcd"]
    jobs = plan_jobs(DemoConfig(video=videos))
    assert [job.stem for job in jobs] == ["clip", "clip_2", "clip_2_2", "Clip_3"]
    jobs = plan_jobs(DemoConfig(video=videos, num_samples=2))
    planned = [str(p).casefold() for job in jobs for pair in targets(DemoConfig(num_samples=2), job) for p in pair]
    assert len(set(planned)) == len(planned)


def test_the_source_is_never_overwritten(clip, tmp_path, capsys):
    source = tmp_path / "ball.mp4"
    source.write_bytes(clip.read_bytes())
    (tmp_path / "ball.flac").write_text("precious")
    assert demo(["--video", str(source), "--output", str(tmp_path), "--overwrite", *FAST]) == 2
    assert "is the source itself" in one_error_line(capsys)
    assert source.read_bytes() == clip.read_bytes()
    assert (tmp_path / "ball.flac").read_text() == "precious"


def test_auto_takes_the_bundled_model_and_says_how_to_get_a_better_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert demo(["--prompt", "wood", "--duration", "1", "--num_steps", "1", "--output", str(tmp_path / "o")]) == 0
    assert "tiny_16k" in (err := capsys.readouterr().err)
    assert "mmaudio download large_44k_v2" in err


def test_picture(tmp_path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (41, 65, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    out = tmp_path / "o"
    assert demo(["--image", str(tmp_path / "p.png"), "--duration", "1", "--output", str(out), *FAST]) == 0
    assert files(out) == ["p.flac", "p.mp4"]


def test_folder_goes_on_after_a_failure(clip, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clip.read_bytes())
    (folder / "b.mp4").write_text("not a video")
    (folder / "c.mp4").write_bytes(clip.read_bytes())
    out = tmp_path / "out"
    assert demo(["--video", str(folder), "--output", str(out), *FAST]) == 1
    captured = capsys.readouterr()
    assert "1 of 3 inputs failed" in captured.err
    assert files(out) == ["a.flac", "a.mp4", "c.flac", "c.mp4", "results.jsonl"]


def test_a_long_video_gets_all_its_sound_or_what_is_asked(tmp_path, capsys):
    video = encode(tmp_path / "long.mp4", 130, rate=10)  # 13 s
    assert demo(["--video", str(video), "--output", str(tmp_path / "o"), *FAST]) == 0
    assert "13.0 s long: made in overlapping windows" in capsys.readouterr().err
    assert probe(tmp_path / "o" / "long.mp4").duration == pytest.approx(13.0, abs=0.05)
    assert soundfile.info(tmp_path / "o" / "long.flac").frames == 13 * 16_000
    assert demo(["--video", str(video), "--output", str(tmp_path / "p"), *FAST, "--duration", "8"]) == 0
    assert probe(tmp_path / "p" / "long.mp4").duration == pytest.approx(8.0, abs=0.2)
    assert soundfile.info(tmp_path / "p" / "long.flac").frames == 8 * 16_000


def test_loudness_and_mixing(clip, tmp_path, capsys):
    out = tmp_path / "o"
    options = ["--video", str(clip), "--output", str(out), "--lufs", "-16", "--mix_original", "-6", *FAST]
    assert demo(options) == 0
    assert "LUFS" in capsys.readouterr().err


# ---- bad input: one line, exit code 2, nothing left behind


def bad_videos(clip, folder):
    whole = clip.read_bytes()
    (folder / "text.mp4").write_text("I am no video\n" * 50)
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.mp4").write_bytes(b"")
    soundfile.write(folder / "sound.wav", np.zeros(16_000), 16_000)
    encode(folder / "one_frame.mp4", 1)
    encode(folder / "short.mp4", 7)  # 0.28 s
    (folder / "folder.mp4").mkdir()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.mp4", "no such file"),
        ("text.mp4", "text.mp4"),
        ("truncated.mp4", "truncated.mp4"),
        ("empty.mp4", "empty"),
        ("sound.wav", "--prompt"),
        ("one_frame.mp4", "--image"),
        ("short.mp4", "needs at least 0.5 s"),
        ("folder.mp4", "no video"),
    ],
)
def test_bad_videos(clip, tmp_path, capsys, name, says):
    bad_videos(clip, tmp_path)
    out = tmp_path / "out"
    assert demo(["--video", str(tmp_path / name), "--output", str(out), *FAST]) == 2
    assert says in one_error_line(capsys)
    assert files(out) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--duration", "0"], "duration"),
        (["--duration", "-1"], "duration"),
        (["--duration", "nan"], "duration"),
        (["--duration", "10000"], "between 0.5 and 30"),
        (["--variant", "huge_96k"], "unknown variant 'huge_96k'"),
        (["--num_steps", "0"], "num_steps"),
        (["--num_samples", "0"], "num_samples"),
        (["--cfg_strength", "nan"], "cfg_strength"),
        (["--solver", "magic"], "unknown solver"),
        (["--device", "quantum"], "--device quantum"),
        (["--image", "x.png"], "not both"),
        (["--lufs", "5"], "loudness"),
        (["no_such_setting=1"], "no_such_setting"),
        (["--mix_original", "7000"], "mix_original"),
        (["--mix_original", "nan"], "mix_original"),
        (["--device", "meta"], "--device meta"),
        (["--output", ""], "--output is empty"),
        (["--video", ""], "--video is empty"),
        (["--video", "x" * 300], "too long"),
        (["--strength", "0.5"], "--audio"),
        (["--batch_size", "0"], "--batch_size"),
        (["--prompts", ""], "--prompts is empty"),
        (["--split_scenes", "--duration", "2"], "no duration"),
    ],
)
def test_bad_arguments(clip, tmp_path, capsys, arguments, says):
    out = tmp_path / "out"
    assert demo(["--video", str(clip), "--output", str(out), *FAST, *arguments]) == 2
    assert says in one_error_line(capsys)
    assert files(out) == []


def test_nothing_to_do(capsys):
    assert demo([]) == 2
    assert "--prompt" in one_error_line(capsys)


def test_output_that_cannot_be_a_folder(clip, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert demo(["--video", str(clip), "--output", str(tmp_path / "file"), *FAST]) == 2
    assert "output" in one_error_line(capsys)
    assert demo(["--video", str(clip), "--output", "/proc/nowhere", *FAST]) == 2
    assert "cannot write here" in one_error_line(capsys)


@pytest.mark.parametrize("after", [0, 1])
def test_full_disk(clip, tmp_path, capsys, monkeypatch, after):
    """The disk is full for the sound (0) or only for the video (1): neither stays."""
    calls, replace = [], os.replace

    def full(source, target):
        calls.append(target)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    out = tmp_path / "out"
    assert demo(["--video", str(clip), "--output", str(out), *FAST]) == 2
    assert "space" in one_error_line(capsys).lower()
    assert files(out) == []


def bundled_copies(folder):
    folder.mkdir()
    for path in BUNDLED_DIR.glob("tiny_16k_*.safetensors"):
        os.symlink(path, folder / path.name)
    return folder


def test_checkpoint_of_another_size(tmp_path, capsys):
    weights = bundled_copies(tmp_path / "weights")
    (weights / "tiny_16k_network.safetensors").unlink()
    save_safetensors(weights / "tiny_16k_network.safetensors", {"latent_mean": torch.zeros(1, 1, 40)})
    out = tmp_path / "out"
    arguments = ["--prompt", "x", "--duration", "1", "--weights_dir", str(weights), "--output", str(out)]
    assert demo([*arguments, *FAST]) == 2
    assert "another size" in one_error_line(capsys)
    assert files(out) == []


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickle_that_executes_code(tmp_path, capsys):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("mmaudio_small_16k.pth", "v1-16.pth", "best_netG.pt", "synchformer_state_dict.pth"):
        (weights / name).write_bytes(pickle.dumps({"x": Exploit(tmp_path / "owned")}))
    (weights / "DFN5B-CLIP-ViT-H-14-384.bin").write_bytes(pickle.dumps({"x": Exploit(tmp_path / "owned")}))
    out = tmp_path / "out"
    options = ["--variant", "small_16k", "--prompt", "x", "--weights_dir", str(weights), "--output", str(out)]
    assert demo(options) == 2
    assert "error:" in one_error_line(capsys)
    assert not (tmp_path / "owned").exists()
    assert files(out) == []


def test_official_variant_without_network(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MMAUDIO_MIRROR", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert demo(["--variant", "small_16k", "--prompt", "x", "--output", str(tmp_path / "out")]) == 2
    line = one_error_line(capsys)
    assert "mmaudio_small_16k.pth" in line
    assert "601M" in line


# ---- the other commands


def test_info(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "tiny_16k" in text
    assert "bundled" in text
    assert main(["info", "large_44k_v2"]) == 0
    assert "CC BY-NC" in capsys.readouterr().out
    assert main(["info", "nonsense"]) == 2
    assert main(["download", "nonsense"]) == 2
    assert main(["download", "tiny_16k"]) == 0


def test_convert(tmp_path, capsys):
    source = tmp_path / "net.pth"
    torch.save(MMAudio(SIZES["tiny_16k"]).state_dict(), source)
    assert main(["convert", str(source), "--variant", "small_16k"]) == 2
    assert "another size" in one_error_line(capsys)
    assert main(["convert", str(source), "--variant", "tiny_16k"]) == 0
    target = tmp_path / "net.safetensors"
    assert capsys.readouterr().out.strip() == str(target)
    from mmaudio.weights import read_metadata, read_state

    assert torch.equal(read_state(target)["latent_std"], torch.ones(1, 1, 20))
    assert read_metadata(target)["variant"] == "tiny_16k"
    assert main(["info", str(target)]) == 0
    assert "hidden_dim" in capsys.readouterr().out
    assert main(["convert", str(source)]) == 2  # exists already
    assert "--overwrite" in one_error_line(capsys)
    assert main(["convert", str(tmp_path / "missing.pth"), str(tmp_path / "x.safetensors")]) == 2
    assert not (tmp_path / "x.safetensors").exists()


def test_help_teaches_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = ("generate", "evaluate", "study", "serve", "completion")
    for command, words in ((demo, []), *((main, [name]) for name in commands)):
        with pytest.raises(SystemExit) as stop:
            command([*words, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert "examples:" in text
        assert max(map(len, text.splitlines())) <= 80


def test_a_live_recording_without_a_length_is_long_too(tmp_path, capsys):
    source, live = encode(tmp_path / "long.mp4", 130, rate=10), tmp_path / "live.mkv"  # 13 s
    with av.open(str(source)) as given, av.open(str(live), "w", format="matroska", options={"live": "1"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert probe(live).duration == pytest.approx(13.0, abs=0.2)
    assert demo(["--video", str(live), "--output", str(tmp_path / "o"), *FAST]) == 0
    assert "s long" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "o" / "live.flac").duration == pytest.approx(13.0, abs=0.2)
