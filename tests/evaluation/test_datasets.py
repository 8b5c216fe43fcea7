"""The published layouts, and tables that are truncated, mislabelled or hostile."""

import json

import pytest

from mmaudio.evaluation.datasets import DatasetError, read_captions, read_dataset


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def read(name, folder, count=None):
    return read_dataset(name, folder, duration=8.0, count=count)


def test_vggsound(tmp_path):
    table = 'aaaaaaaaaaa,30,"dog barking, howling",test\nbbbbbbbbbbb,5,rain,train\n-cccccccccc,0,wind,test\n'
    write(tmp_path, {"vggsound.csv": table, "video/aaaaaaaaaaa_000030.mp4": b"", "-cccccccccc.mp4": b""})
    dog, wind = read("vggsound", tmp_path)
    assert (dog.id, dog.caption, dog.kind) == ("aaaaaaaaaaa_000030", "dog barking, howling", "dog barking, howling")
    assert dog.video == dog.reference == tmp_path / "video" / "aaaaaaaaaaa_000030.mp4"
    assert wind.video == tmp_path / "-cccccccccc.mp4"
    assert read("vggsound", tmp_path, count=1) == [dog]
    write(tmp_path, {"vggsound.csv": "ddddddddddd,7,bell,test\n"})
    assert not read("vggsound", tmp_path)[0].video.exists()  # a clip that has vanished fails by name, later


def test_audiocaps(tmp_path):
    header = "audiocap_id,youtube_id,start_time,caption\n"
    rows = "1,aaaaaaaaaaa,30,a dog\n2,aaaaaaaaaaa,30,an animal\n3,bbbbbbbbbbb,0,rain\n"
    write(tmp_path, {"test.csv": header + rows, "Yaaaaaaaaaaa.wav": b"", "audio/3.flac": b""})
    clips = read("audiocaps", tmp_path)
    assert [clip.id for clip in clips] == ["Yaaaaaaaaaaa_000030_0", "Yaaaaaaaaaaa_000030_1", "Ybbbbbbbbbbb_000000_0"]
    assert {clip.video for clip in clips} == {None}
    assert clips[0].reference == clips[1].reference == tmp_path / "Yaaaaaaaaaaa.wav"
    assert clips[2].reference == tmp_path / "audio" / "3.flac"


def test_movie_gen_in_one_table_or_many(tmp_path):
    lines = [{"video": "3.mp4", "audio_prompt": "waves"}, {"id": 7, "caption": "a kettle"}]
    write(tmp_path / "one", {"bench.jsonl": "".join(json.dumps(line) + "\n" for line in lines), "video/3.mp4": b""})
    waves, kettle = read("moviegen", tmp_path / "one")
    assert (waves.id, waves.caption, waves.reference) == ("3", "waves", None)
    assert waves.video == tmp_path / "one" / "video" / "3.mp4"
    assert kettle.id == "7"
    write(tmp_path / "many", {"jsonl/12.jsonl": json.dumps({"audio_prompt": "steps"}), "12.mp4": b""})
    assert [(c.id, c.caption, c.video.name) for c in read("moviegen", tmp_path / "many")] == [("12", "steps", "12.mp4")]


def test_greatest_hits(tmp_path):
    files = {"a_times.txt": "1.5 wood hit static\n0.25 None hit None\n", "b_times.txt": "", "a_denoised.mp4": b""}
    write(tmp_path, {**files, "a_denoised.wav": b""})
    a, b = read("greatest_hits", tmp_path)
    assert (a.id, a.times, a.caption) == ("a", (0.25, 1.5), "")
    assert (a.video.name, a.reference.name) == ("a_denoised.mp4", "a_denoised.wav")
    assert b.times == ()
    write(tmp_path, {"test.txt": "b\n"})
    assert [clip.id for clip in read("greatest_hits", tmp_path)] == ["b"]


def test_a_table_of_ones_own(tmp_path):
    write(tmp_path, {"own.csv": '\ufeffid,path,caption\nx,media/x.mp4,"a ""b"", c"\ny,y.wav,\nz,,words\n'})
    x, y, z = read(str(tmp_path / "own.csv"), None)
    assert (x.video, x.reference, x.caption) == (tmp_path / "media/x.mp4", tmp_path / "media/x.mp4", 'a "b", c')
    assert (y.video, y.reference) == (None, tmp_path / "y.wav")
    assert (z.video, z.reference, z.caption) == (None, None, "words")


def test_captions(tmp_path):
    write(tmp_path, {"a.csv": "name,caption\nx,first\nx,second\n", "b.tsv": "id\tcaption\ny\tone, two\u2028\fthree\n"})
    assert read_captions(tmp_path / "a.csv") == {"x": "first"}
    assert read_captions(tmp_path / "b.tsv") == {"y": "one, two\u2028\fthree"}


AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption\n"


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("vggsound", {}, "vggsound.csv: cannot read"),
        ("vggsound", {"vggsound.csv": ""}, "lists no clips"),
        ("vggsound", {"vggsound.csv": "a,0,dog,train\n"}, "lists no clips"),
        ("vggsound", {"vggsound.csv": "a,0,dog\n"}, "line 1: expected id, second, label"),
        ("vggsound", {"vggsound.csv": "a,0,dog,test\nb,soon,dog,test\n"}, "line 2: expected seconds"),
        ("vggsound", {"vggsound.csv": "a,0,dog,test\na,0,cat,test\n"}, "more than once"),
        ("vggsound", {"vggsound.csv": "../../etc/x,0,dog,test\n"}, "cannot be a file name"),
        ("vggsound", {"vggsound.csv": f"{'a' * 300},0,dog,test\n"}, "longer than"),
        ("vggsound", {"vggsound.csv": 'a,0,"dog,test\n'}, "no CSV"),
        ("vggsound", {"vggsound.csv": b"\x89PNG\r\n\x1a\n\xff\xfe"}, "no UTF-8"),
        ("audiocaps", {"test.csv": "youtube_id,caption\n"}, "first line must name"),
        ("audiocaps", {"test.csv": AUDIOCAPS + "1,aaaaaaaaaaa,30\n"}, "line 2: has 3 fields"),
        ("audiocaps", {"test.csv": AUDIOCAPS + "1,aaaaaaaaaaa,-3,dog\n"}, "expected seconds"),
        ("moviegen", {}, "no .jsonl"),
        ("moviegen", {"b.jsonl": '{"video": "1.mp4", "audio_pro'}, "line 1: is no JSON"),
        ("moviegen", {"b.jsonl": "[" * 100_000}, "line 1: is no JSON"),
        ("moviegen", {"b.jsonl": '{"video": "1.mp4"}'}, "must have audio_prompt"),
        ("moviegen", {"b.jsonl": '{"video": "1.mp4", "audio_prompt": "\\ud800"}'}, "is no text"),
        ("greatest_hits", {}, r"no \*_times.txt"),
        ("greatest_hits", {"a_times.txt": "1.0 wood\nnan wood\n"}, "line 2: expected seconds"),
        ("greatest_hits", {"a_times.txt": "", "test.txt": "b\n"}, "no b_times.txt"),
        ("stage", {}, "--count"),
        ("nonsense", {}, "unknown dataset"),
    ],
)
def test_bad_tables_end_in_one_line(tmp_path, name, files, message):
    write(tmp_path, files)
    with pytest.raises(DatasetError, match=message) as error:
        read(name, tmp_path)
    assert "\n" not in str(error.value)


def test_a_set_needs_a_folder_and_a_count(tmp_path):
    with pytest.raises(DatasetError, match="--data"):
        read("vggsound", None)
    with pytest.raises(DatasetError, match="at least 1"):
        read("vggsound", tmp_path, count=0)
