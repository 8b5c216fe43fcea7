"""Many inputs in one command: lists, resuming, batches of equal length, and the best of several takes."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch

import mmaudio
from mmaudio.batch import Results, read_ahead
from mmaudio.cli import demo
from mmaudio.generate_command import DemoConfig
from mmaudio.generation import Generation
from mmaudio.jobs import Job, listed_jobs, plan_jobs
from mmaudio.ranking import pick
from mmaudio.request import read_request
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

FAST = ["--variant", "tiny_16k", "--num_steps", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "ball.mp4"
    write_mp4(path, render_clip(2_000_000, size=64, duration=1, audio=False))
    return path


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_list_its_bad_rows_and_going_on(clip, tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "noise.mp4").write_text("not a video")
    table = tmp_path / "list.csv"
    table.write_text(
        "video,prompt,negative_prompt,seed,duration,output\n"
        "a.mp4,wood,,7,,first.mp4\n"
        "a.mp4,metal,,seven,,\n"
        "a.mp4,,,,,../outside\n"
        "a.mp4,glass, far away,,,,\n"
        "noise.mp4,,,,,\n"
        ',"rain, far",music,3,1,\n'
    )
    out = tmp_path / "out"
    arguments = ["--video", str(table), "--output", str(out), *FAST, "--batch_size", "2"]
    assert demo(arguments) == 1
    told = capsys.readouterr()
    assert "4 of 6 inputs failed" in told.err
    assert sorted(p.name for p in out.iterdir()) == ["first.flac", "first.mp4", "rain_far.flac", "results.jsonl"]
    rows = lines(out)
    names = sorted((row["state"], str(row["input"]).rpartition("/")[2]) for row in rows)
    assert names == [("done", "None"), ("done", "a.mp4"), *3 * [("failed", "a.mp4")], ("failed", "noise.mp4")]
    (first,) = (row for row in rows if row["outputs"] and "first.flac" in row["outputs"][0])
    assert (first["seeds"], first["settings"]["prompt"], first["error"]) == ([7], "wood", None)
    errors = " ".join(row["error"] for row in rows if row["state"] == "failed")
    assert "row 3: seed is 'seven'" in errors
    assert "row 4: output is '../outside'" in errors
    assert "row 5: has more cells" in errors

    before = (out / "first.flac").stat().st_mtime_ns
    (out / "first.mp4").unlink()  # as if it had been stopped between the two
    with (out / "results.jsonl").open("a") as file:
        file.write('{"state": "do')
    assert demo(arguments) == 2  # exists already
    assert demo([*arguments, "--skip_existing"]) == 1
    assert "1 of 6 inputs have their results already" in capsys.readouterr().err
    assert (out / "first.mp4").exists()
    assert (out / "first.flac").stat().st_mtime_ns > before
    assert len(lines(out)) == len(rows) + 5
    table.write_text("video,promt\na.mp4,wood\n")
    with pytest.raises(ValueError, match="unknown column"):
        listed_jobs(table)


def test_killed_half_way_and_run_again(clip, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = [f"{i}" for i in range(3)]
    for name in names:
        (folder / f"{name}.mp4").write_bytes(clip.read_bytes())
    arguments = ["--video", str(folder), "--output", str(out), *FAST, "--skip_existing", "--skip_video_composite"]
    command = [sys.executable, "-c", "import sys; from mmaudio.cli import demo; sys.exit(demo())", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (out / "0.flac").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.flac")}
    assert "0.flac" in done
    assert demo(arguments) == 0
    assert sorted(path.name for path in out.glob("*.flac")) == [f"{name}.flac" for name in names]
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done
    outputs = [output for row in lines(out) for output in row["outputs"]]
    assert sorted(outputs) == [str(out / f"{name}.flac") for name in names]
    assert demo(arguments) == 0
    assert "3 of 3 inputs have their results already" in capsys.readouterr().err
    assert len(lines(out)) == 3


def test_a_batch_gives_what_each_gives_alone(clip):
    pipe = mmaudio.load("tiny_16k", device="cpu")
    requests = [
        read_request(pipe.variant, clip, "wood", seed=3),
        read_request(pipe.variant, None, "a bell", "speech", duration=1.5, seed=9),
    ]
    takes = pipe.generate(requests, num_steps=2, num_samples=2)
    assert [[take.seed for take in group] for group in takes] == [[3, 4], [9, 10]]
    alone = (
        pipe(clip, "wood", num_steps=2, seed=4)[0],
        pipe(None, "a bell", "speech", duration=1.5, num_steps=2, seed=9)[0],
    )
    for one, batched in zip(alone, (takes[0][1], takes[1][0]), strict=True):
        assert one.audio.shape == batched.audio.shape
        assert (one.latents - batched.latents).abs().max() <= 1e-4
        assert (one.prompt, one.source) == (batched.prompt, batched.source)
    other = read_request(pipe.variant, None, "x", duration=9.0)
    with pytest.raises(ValueError, match="equal length"):
        pipe.generate([requests[0], other])


def test_files_are_read_ahead_in_order():
    jobs, begun = [Job(None, False, str(i)) for i in range(6)], []

    def read(job):
        begun.append(job.stem)
        if job.stem == "3":
            raise ValueError("bad")
        return job.stem

    got = []
    for job, request in read_ahead(read, jobs, 2):
        try:
            got.append(request())
        except ValueError:
            got.append("failed")
        assert int(job.stem) < len(begun) <= int(job.stem) + 4
    assert got == ["0", "1", "2", "failed", "4", "5"]


def clicks(times, seed, source):
    audio = torch.zeros(1, 4 * 16_000)
    for at in times:
        audio[0, round(at * 16_000) :][:800] = torch.linspace(0.5, 0, 800) * torch.randn(800)
    return Generation(audio, 16_000, torch.zeros(1, 1), seed, "toy", "", 4.0, source)


def test_the_best_takes_are_those_in_time(tmp_path):
    import dataclasses

    video = np.zeros((100, 64, 64, 3), np.uint8)
    for k, at in enumerate((25, 50, 75)):  # flashes at 1, 2 and 3 s
        video[at:] = 80 * (k + 1)
    path = tmp_path / "flashes.mp4"
    write_mp4(path, dataclasses.replace(render_clip(1, size=64, duration=1, audio=False), video=video))
    takes = [clicks(times, seed, path) for seed, times in enumerate(([0.4, 1.6], [1, 2, 3], [1, 2.5]))]
    best, scores, line = pick(takes, 2)
    assert [take.seed for take in best] == [1, 2]
    assert scores[0] == 1.0 > scores[1] > 0
    assert "seed 1 (1.00)" in line
    words = [dataclasses.replace(take, source=None) for take in takes]
    best, scores, line = pick(words, 1)
    assert best[0].seed == 0
    assert math.isnan(scores[0])
    assert "no video" in line


def test_picking_from_the_command_line(clip, tmp_path, capsys):
    arguments = ["--video", str(clip), "--output", str(tmp_path), "--num_samples", "2", *FAST]
    assert demo([*arguments, "--pick", "3"]) == 2
    assert demo([*arguments, "--pick", "1"]) == 0
    assert sorted(os.listdir(tmp_path)) == ["ball.flac", "ball.mp4"]
    assert "onset agreement with the picture's motion" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "ball.flac").frames == 16_000


def test_results_survive_half_a_line_and_hostile_names(tmp_path):
    path = tmp_path / "results.jsonl"
    name = "a\n\u2028\udcff\"'.mp4"
    Results(path).add("done", Job(tmp_path / name, False, "x"), [tmp_path / name])
    path.write_bytes(path.read_bytes() + b'{"state": "done", "outp')
    again = Results(path)
    assert again.outputs == {str(tmp_path / name)}
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().endswith(b"\n")


def test_a_list_and_videos_do_not_mix(tmp_path):
    from mmaudio.console import UsageError

    with pytest.raises(UsageError, match="not both"):
        plan_jobs(DemoConfig(video=[str(tmp_path / "a.csv"), "b.mp4"]))
