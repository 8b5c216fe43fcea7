"""The engine under page and service: order, batches, cancelling, what outlives a process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing

import av
import numpy as np
import pytest
import torch
from scripted import SOON, ScriptedPipeline, engine, sound_of

from mmaudio.console import UsageError
from mmaudio.media import MediaError, read_audio
from mmaudio.web.jobs import Ask, NoSuchJob, QueueFull, State
from mmaudio.weights import WeightError

LIES = "the video is longer than its header says: save it again"


def words(prompt, **changes):
    return Ask("tiny_16k", prompt=prompt, **changes)


def test_a_batch_of_one_kind_and_nothing_is_mixed_up(pipe, clip, tmp_path):
    pipe.go.clear()
    with closing(engine(pipe, tmp_path, max_batch=4)) as made:
        first = made.submit(words("first"))
        assert pipe.begun.wait(SOON)
        jobs = [made.submit(words(f"p{i}", seed=i, num_samples=2)) for i in range(3)]
        other = made.submit(words("other", num_samples=2, num_steps=3))
        seen = made.submit(Ask("tiny_16k", video=clip, prompt="video"))
        pipe.go.set()
        for job in (first, *jobs, other, seen):
            assert job.wait(SOON)
            assert (job.state, job.error, job.progress) == (State.DONE, "", 1.0)
            for i, take in enumerate(job.takes):
                assert take.seed == job.ask.seed + i
                wave, _ = read_audio(job.file(i, "wav"))
                torch.testing.assert_close(wave, sound_of(job.ask.prompt, take.seed), atol=1e-4, rtol=0)
        assert pipe.batches == [["first"], ["p0", "p1"], ["p2"], ["other"], ["video"]]
        assert (made.batches, made.batched, made.counts["done"]) == (5, 6, 6)
        assert set(seen.takes[0].files) == {"flac", "wav", "mp4"}
        assert "about the file" in seen.notes
        assert sorted(p.name for p in seen.folder.iterdir()) == ["1.flac", "1.mp4", "1.wav", "job.json"]
        assert clip.exists()


def test_cancelling(pipe, tmp_path):
    pipe.go.clear()
    with closing(engine(pipe, tmp_path, max_queue=2)) as made:
        blocker = made.submit(words("blocker", num_steps=3))
        assert pipe.begun.wait(SOON)
        pipe.begun.clear()
        one, two = made.submit(words("one")), made.submit(words("two"))
        with pytest.raises(QueueFull) as full:
            made.submit(words("three"))
        assert full.value.retry_after >= 1
        blocker.cancel()
        assert blocker.wait(SOON)  # though its steps would go on
        assert pipe.begun.wait(SOON)
        third = made.submit(words("third"))
        third.cancel()
        assert third.state == State.CANCELLED  # it had not begun
        two.cancel()
        assert two.wait(SOON)
        assert one.state == State.RUNNING  # its batch goes on without the other
        pipe.go.set()
        assert one.wait(SOON)
        states = [(job.state, len(job.takes)) for job in (blocker, one, two, third)]
        assert states == [("cancelled", 0), ("done", 1), ("cancelled", 0), ("cancelled", 0)]
        torch.testing.assert_close(read_audio(one.file(0, "flac"))[0], sound_of("one", 42), atol=1e-4, rtol=0)
        assert [p.name for p in two.folder.iterdir()] == ["job.json"]
        assert made.counts == {"cancelled": 3, "done": 1, "refused": 1}


def test_what_fails_fails_alone(pipe, clip, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(clip.read_bytes())
    with closing(engine(pipe, tmp_path / "out")) as made:
        pipe.go.clear()
        blocker = made.submit(words("blocker", num_steps=3))
        assert pipe.begun.wait(SOON)
        bad, good = made.submit(Ask("tiny_16k", video=damaged)), made.submit(words("good"))
        bad.ask.video.unlink()
        bad.ask.video.write_text("no video")
        pipe.go.set()
        assert all(job.wait(SOON) for job in (blocker, bad, good))
        assert (bad.state, good.state) == (State.FAILED, State.DONE)
        assert bad.error.startswith("the file: ")
        pipe.error = RuntimeError("secret")
        broken = made.submit(words("broken"))
        assert broken.wait(SOON)
        assert broken.error == "an internal error, which is in the server's log"
        pipe.error = torch.OutOfMemoryError("CUDA")
        large = made.submit(words("large"))
        assert large.wait(SOON)
        assert "fewer takes" in large.error
        pipe.error = WeightError("/secret/weights.safetensors: not there")
        missing = made.submit(words("missing"))
        assert missing.wait(SOON)
        assert missing.error == "the variant cannot be loaded: the server's log says why"
        pipe.go.clear()
        unwritten = made.submit(words("unwritten"))
        pipe.error = MediaError(f"{unwritten.folder}/.1.7-ab.flac: cannot be written")
        pipe.go.set()
        assert unwritten.wait(SOON)
        assert unwritten.error == "the file: cannot be written"
        pipe.go.clear()
        gone = made.submit(words("gone"))
        shutil.rmtree(gone.folder)
        pipe.error = RuntimeError("where is it?")
        pipe.go.set()
        assert gone.wait(SOON)
        pipe.error = None
        again = made.submit(words("again"))
        assert again.wait(SOON)
        assert again.state == State.DONE


def test_cancelled_beside_a_batch_that_it_does_not_fit(pipe, tmp_path):
    with closing(engine(pipe, tmp_path)) as made:
        pipe.go.clear()
        job = made.submit(words("x"))
        assert pipe.begun.wait(SOON)
        job.cancel()
        job.give_back()  # as the engine does with it
        assert (job.state, made.queued) == (State.CANCELLED, [])
        pipe.go.set()


def test_a_video_longer_than_it_says(pipe, tmp_path):
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=1)
        stream.width, stream.height = 64, 64
        for i in range(20):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * i, np.uint8))))
        out.mux(stream.encode(None))
    data, said = path.read_bytes(), b"00:00:20.000000000"
    assert data.count(said) == 1
    path.write_bytes(data.replace(said, b"00:00:02.000000000"))
    with closing(engine(pipe, tmp_path / "out")) as made:
        job = made.submit(Ask("tiny_16k", video=path))
        assert job.wait(SOON)
        assert (job.length, job.state, job.error) == (2.0, "failed", LIES)


def test_progress(pipe, tmp_path):
    with closing(engine(pipe, tmp_path)) as made:
        pipe.go.clear()
        job, seen = made.submit(words("x")), []
        for now in job.changes():
            seen.append((now.stage, now.progress))
            if now.stage == "solve" and now.progress > 0.352:
                pipe.go.set()
        assert [p for _, p in seen] == sorted(p for _, p in seen)
        assert "solve" in {stage for stage, _ in seen}
        assert seen[-1][1] == 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prompt": " "}, "nothing to do"),
        ({"num_steps": 0}, "num_steps must be between 1 and 200"),
        ({"num_samples": 9}, "num_samples"),
        ({"seed": 2**53}, "seed"),
        ({"cfg_strength": float("nan")}, "cfg_strength"),
        ({"duration": 31.0}, "duration"),
        ({"duration": float("inf")}, "duration"),
        ({"solver": "../x"}, "unknown solver"),
        ({"lufs": 3.0}, "loudness"),
        ({"negative_prompt": "x" * 1001}, "negative_prompt has 1001"),
        ({"variant": "/etc/passwd"}, "variant must be one of tiny_16k"),
    ],
)
def test_what_is_refused(tmp_path, changes, match):
    with closing(engine(ScriptedPipeline(), tmp_path)) as made:
        with pytest.raises(ValueError, match=match):
            made.submit(Ask(**{"variant": "tiny_16k", "prompt": "x", **changes}))
        assert not list((tmp_path / "jobs").iterdir())


def test_files_that_are_refused(pipe, clip, tmp_path):
    text, picture = tmp_path / "a.mp4", tmp_path / "p.png"
    text.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    from PIL import Image

    Image.new("1", (9000, 4500)).save(picture)  # a few kilobytes that become 120 MB
    with closing(engine(pipe, tmp_path / "out")) as made:
        for ask, match in (
            (Ask("tiny_16k", video=text), "a.mp4"),
            (Ask("tiny_16k", image=clip), "send it as video"),
            (Ask("tiny_16k", image=picture), "9000 x 4500 pixels are too many"),
            (Ask("tiny_16k", video=picture), "send it as image"),
        ):
            with pytest.raises(MediaError, match=match):
                made.submit(ask)


def test_it_expires(pipe, tmp_path):
    with closing(engine(pipe, tmp_path)) as made:
        job = made.submit(words("x"))
        assert job.wait(SOON)
        assert made.job(job.id) is job
        made.expire = 0.0
        time.sleep(0.01)
        with pytest.raises(NoSuchJob):
            made.job(job.id)
        assert made.submit(words("y")).wait(SOON)
        assert not job.folder.exists()


def test_the_oldest_make_room(pipe, tmp_path):
    with closing(engine(pipe, tmp_path)) as made:
        jobs = [made.submit(words(f"{i}")) for i in range(3)]
        assert all(job.wait(SOON) for job in jobs)
        made.max_disk = 2.5 * jobs[0].size()
        assert made.submit(words("fourth")).wait(SOON)  # what is finished is counted before it is begun
        assert [job.folder.exists() for job in jobs] == [False, True, True]
        with pytest.raises(NoSuchJob):
            made.job(jobs[0].id)
        made.max_disk = 1
        last = made.submit(words("fifth"))
        assert last.wait(SOON)
        assert [path.name for path in (tmp_path / "jobs").iterdir() if path.name != last.id] != []  # the fourth
        assert not any(job.folder.exists() for job in jobs)


def test_closing_puts_off_what_it_cannot_finish(pipe, tmp_path):
    pipe.go.clear()
    made = engine(pipe, tmp_path)
    running = made.submit(words("running"))
    assert pipe.begun.wait(SOON)
    waiting = made.submit(words("waiting", num_steps=3))
    with pytest.raises(UsageError, match="another server"):
        engine(pipe, tmp_path)
    made.close(patience=0.01)
    assert not waiting.wait(SOON)
    assert not running.wait(SOON)
    assert (running.state, waiting.state) == (State.QUEUED, State.QUEUED)
    with pytest.raises(QueueFull):
        made.submit(words("late"))
    pipe.go.set()
    with closing(engine(pipe, tmp_path)) as after:
        for job in (running, waiting):
            again = after.job(job.id)
            assert again.wait(SOON)
            torch.testing.assert_close(
                read_audio(again.file(0, "wav"))[0], sound_of(job.ask.prompt, 42), atol=1e-4, rtol=0
            )


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from scripted import ScriptedPipeline, engine
from mmaudio.web.jobs import Ask
pipe = ScriptedPipeline()
made = engine(pipe, Path(sys.argv[1]))
done = made.submit(Ask("tiny_16k", prompt="done"))
done.wait()
pipe.go.clear()
pipe.begun.clear()
running = made.submit(Ask("tiny_16k", prompt="running"))
pipe.begun.wait()
queued = made.submit(Ask("tiny_16k", image=Path(sys.argv[3]), num_steps=3))
print(done.id, running.id, queued.id, flush=True)
pipe.generate([], num_samples=1, progress=lambda *_: None)
"""


def test_killed_and_started_again(pipe, tmp_path):
    from PIL import Image

    picture = tmp_path / "p.png"
    Image.new("RGB", (64, 64)).save(picture)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out"), os.path.dirname(__file__), str(picture)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        ids = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    half = tmp_path / "out" / "jobs" / ("0" * 32)
    half.mkdir()
    (half / "job.json").write_text('{"state": "do')
    with closing(engine(pipe, tmp_path / "out")) as made:
        done, running, queued = map(made.job, ids)
        assert queued.wait(SOON)
        assert (done.state, running.state, queued.state) == (State.DONE, State.FAILED, State.DONE)
        assert "ask again" in running.error
        torch.testing.assert_close(read_audio(done.file(0, "flac"))[0], sound_of("done", 42), atol=1e-4, rtol=0)
        assert queued.file(0, "mp4").exists()
        assert not half.exists()
    assert json.loads((running.folder / "job.json").read_text())["state"] == "failed"
