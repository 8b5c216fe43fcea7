"""What a backbone needs, and what it says when that is not there."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmaudio.cli import main
from mmaudio.evaluation import checksums
from mmaudio.evaluation.backbones import BACKBONES, Unavailable, find_backbone, load_backbone
from mmaudio.evaluation.backbones.audioset import CLASSES, MUSIC, SPEECH, speech_and_music
from mmaudio.evaluation.backbones.imagebind import read_frames
from mmaudio.evaluation.backbones.synchformer import SynchformerBackbone
from mmaudio.evaluation.judge import LABELS, load_judge
from mmaudio.features.frames import short_side_frame
from mmaudio.features.synchformer import SynchformerConfig
from mmaudio.features.synchformer_audio import SynchformerAudioConfig
from mmaudio.features.synchformer_offset import (
    OffsetHeadConfig,
    Synchformer,
    SynchformerModelConfig,
    official_key,
    offset_grid,
)
from mmaudio.media import MediaError, read_audio, read_video
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.weights import WeightError, WeightFile, cache_dir, fingerprint, save_safetensors, verify

SMALL = SynchformerModelConfig(
    SynchformerConfig(embed_dim=32, depth=1, num_heads=2, frame_size=32),
    SynchformerAudioConfig(embed_dim=32, depth=1, num_heads=2),
    OffsetHeadConfig(embed_dim=32, depth=1, num_heads=2),
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A Stage clip of 5.2 s with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_mp4(path, render_clip(3, duration=5.2, size=64, sample_rate=16_000))
    return path


# ---- availability -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, info in BACKBONES.items() if not info.bundled])
def test_what_is_missing_is_said_with_its_remedy(name, tmp_path):
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            load_backbone(name, weights_dir=tmp_path)
    reason, remedy = caught.value.reason, caught.value.remedy
    assert "\n" not in reason + remedy
    if "package" in reason:
        assert remedy.startswith("pip install ")
    else:
        for file in BACKBONES[name].files:
            assert file.name in reason
            assert file.url in remedy
            assert str(tmp_path / file.name) in remedy
    assert not list(tmp_path.rglob("*.part"))


def test_every_file_names_its_licence_and_source():
    for info in BACKBONES.values():
        assert info.licence
        assert set(info.modalities) <= {"audio", "video", "text"}
        for file in info.files:
            assert info.bundled or file.url.startswith("https://")
            assert file.licence
            assert not file.sha256 or set(file.sha256) <= set("0123456789abcdef")
    assert BACKBONES["judge"].bundled
    assert not BACKBONES["panns"].bundled


def test_a_failed_download_is_a_reason_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMAUDIO_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"cannot reach http://127.0.0.1:9/vggish-10086976.pth"):
        load_backbone("vggish", weights_dir=tmp_path, download=True)
    assert "vggish-10086976.pth: licence Apache-2.0" in capsys.readouterr().err


def test_a_network_of_the_evaluation_is_downloaded_by_name(server, tmp_path, monkeypatch, capsys):
    served, url = server
    info = BACKBONES["vggish"]
    file = dataclasses.replace(info.files[0], sha256=hashlib.sha256(b"weights").hexdigest(), size=None)
    monkeypatch.setitem(BACKBONES, "vggish", dataclasses.replace(info, files=(file,)))
    monkeypatch.setenv("MMAUDIO_MIRROR", url)
    (served / file.name).write_bytes(b"weights")
    here = tmp_path / "weights" / file.name
    words = ["vggish", "--weights_dir", str(here.parent)]
    assert main(["download", *words]) == 0
    told = capsys.readouterr()
    assert told.out == f"{here}\n"
    assert "licence: Apache-2.0" in told.err
    (served / file.name).unlink()
    assert main(["download", *words]) == 0
    assert main(["info", *words]) == 0
    assert f"{file.name}: {here}\n         licence: Apache-2.0" in capsys.readouterr().out
    assert main(["info", *words[1:]]) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert (rows["vggish"], rows["panns"], rows["judge"]) == ("local", "missing", "bundled")
    here.write_bytes(b"other")
    assert main(["download", *words]) == 2
    assert "wrong checksum" in capsys.readouterr().err
    assert main(["download", "judge"]) == 0


def test_a_sha256_or_its_first_digits_are_checked(tmp_path):
    (tmp_path / "file").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for known in (digest, digest[:8]):
        verify(tmp_path / "file", WeightFile("file", None, sha256=known))
    with pytest.raises(WeightError, match=f"wrong checksum .SHA-256 got {digest}, expected 10086976"):
        verify(tmp_path / "file", WeightFile("file", None, sha256="10086976"))


def test_a_damaged_file_is_an_error_and_no_skip(tmp_path):
    (tmp_path / "vggish-10086976.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(WeightError, match="truncated, damaged"):
        load_backbone("vggish", weights_dir=tmp_path)
    save_safetensors(tmp_path / "vggish-10086976.safetensors", {"features.0.weight": torch.ones(1)})
    with pytest.raises(WeightError, match="does not fit VGG"):
        load_backbone("vggish", weights_dir=tmp_path)
    with pytest.raises(ValueError, match="unknown backbone 'vgg': expected one of panns, vggish"):
        load_backbone("vgg")


def test_asking_imports_no_network_library():
    code = (
        "import sys; from mmaudio.evaluation.backbones import BACKBONES, Unavailable, load_backbone\n"
        "for name, info in BACKBONES.items():\n"
        "    try: info.bundled or load_backbone(name, weights_dir='/nowhere')\n"
        "    except Unavailable: pass\n"
        "print([m for m in ('torchvision', 'torchaudio', 'timm', 'transformers', 'open_clip') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ---- the judge ----------------------------------------------------------------------------------------------------


def test_the_judge_is_a_backbone():
    loaded = load_backbone("judge", device="cpu")
    assert (loaded.name, loaded.modalities, loaded.licence) == ("judge", ("audio",), "MIT")
    sound = torch.randn(2, 48_000) * 0.1
    heard = loaded.audio(sound, 16_000, 2.0)
    verdict = load_judge().listen(sound.mean(0)[:32_000].numpy(), 16_000)
    assert heard["logits"].shape == (len(LABELS),)
    np.testing.assert_array_equal(heard["logits"], verdict.logits)
    np.testing.assert_array_equal(heard["embedding"], verdict.embedding)
    with pytest.raises(ValueError, match="44101 Hz cannot be resampled"):
        loaded.audio(sound, 44_101, 2.0)


# ---- Synchformer, small -------------------------------------------------------------------------------------------


@pytest.fixture
def synchformer(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "synchformer_state_dict.pth"
    torch.save({official_key(key): x for key, x in Synchformer(SMALL).state_dict().items()}, path)
    return SynchformerBackbone(BACKBONES["synchformer"], [path], torch.device("cpu"), SMALL)


def test_synchformer_from_a_file_to_offsets(synchformer, clip):
    video = synchformer.video(clip, 5.2)["features"]
    audio = synchformer.audio(*read_audio(clip), 5.2)["features"]
    assert video.shape == (15, 8, 32)
    assert audio.shape == (15, 6, 32)
    assert video.dtype == audio.dtype == np.float32
    offsets = synchformer.offsets(video, audio)
    head = synchformer.network.head
    with torch.inference_mode():
        for got, part in zip(offsets, (slice(0, 14), slice(1, 15)), strict=True):
            logits = head(torch.tensor(video[None, part]), torch.tensor(audio[None, part]))
            assert got == offset_grid()[logits.argmax()]


def test_synchformer_refuses_what_is_too_short(synchformer, clip):
    with pytest.raises(ValueError, match="has 127680 samples of sound at 16 kHz, Synchformer needs 128000"):
        synchformer.audio(torch.zeros(1, 7_980 * 48), 48_000, 8.0)
    with pytest.raises(ValueError, match="has 130 pictures at 25 fps, Synchformer needs 200"):
        synchformer.video(clip, 8.0)
    with pytest.raises(MediaError, match="no such file"):
        synchformer.video(clip.with_name("other.mp4"), 8.0)
    features = np.zeros((13, 8, 32), np.float32), np.zeros((13, 6, 32), np.float32)
    with pytest.raises(ValueError, match=r"at least 14 \(4.8 s\); got 13 and 13"):
        synchformer.offsets(*features)


def test_identity_names_weights_and_preprocessing(synchformer, tmp_path):
    checksum = fingerprint(tmp_path / "synchformer_state_dict.pth")
    assert synchformer.identity == f"synchformer-1+{checksum}"


def test_weights_that_were_read_once_are_known_until_they_change(tmp_path, monkeypatch):
    path, reads = tmp_path / "vggish-10086976.safetensors", []
    monkeypatch.setattr(checksums, "fingerprint", lambda path: reads.append(path) or fingerprint(path))

    def identity():
        return find_backbone("vggish", weights_dir=tmp_path).identity  # the file fits no VGGish: nothing is loaded

    save_safetensors(path, {"w": torch.ones(2)})
    first, times = identity(), path.stat()
    assert first == identity() == f"vggish-1+{fingerprint(path)}"
    assert reads == [path]
    save_safetensors(path, {"w": torch.zeros(2)})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert identity() != first
    (cache_dir() / checksums.REMEMBERED).write_text("[")
    assert identity() == f"vggish-1+{fingerprint(path)}"
    assert len(reads) == 3


# ---- ImageBind's pictures -----------------------------------------------------------------------------------------


def test_imagebind_reads_frames_before_each_odd_second(clip):
    frames = read_frames(clip, 5.2)
    assert frames.shape == (2, 3, 224, 224)
    every = read_video(clip, 5.2, rule="nearest").sync  # the Stage's clips have 25 frames a second
    resize = short_side_frame(224)
    for got, index in zip(frames, (24, 74), strict=True):
        assert torch.equal(got, resize(every[index].contiguous()))
    with pytest.raises(ValueError, match=r"has 3 pictures at 0\.5 fps, ImageBind needs 4"):
        read_frames(clip, 8.0)
    with pytest.raises(ValueError, match=r"at least 4 s of pictures, got 3\.9"):
        read_frames(clip, 3.9)
    with pytest.raises(MediaError, match="no such file"):
        read_frames(clip.with_name("other.mp4"), 5.2)


# ---- speech and music ---------------------------------------------------------------------------------------------


def test_speech_and_music_are_the_classes_of_these_names(class_names):
    assert len(class_names) == CLASSES
    speech = [class_names[i] for i in SPEECH]
    assert (speech[0], *speech[-3:]) == ("Speech", "Whispering", "Chatter", "Hubbub, speech noise, speech babble")
    music = [class_names[i] for i in MUSIC]
    assert (music[0], music[10], music[11], music[12], music[-1]) == (
        "Singing", "Humming", "Music", "Pop music", "Scary music",
    )  # fmt: skip
    other = [name.lower() for i, name in enumerate(class_names) if i not in SPEECH + MUSIC]
    assert not [name for name in other if "speech" in name or "singing" in name.replace("singing bowl", "")]
    assert [name for name in other if "music" in name] == ["musical instrument", "keyboard (musical)"]


def test_speech_and_music_count_what_the_reference_lacks():
    generated, reference = np.full((2, 4, CLASSES), -5.0)
    generated[0, 3] = 5.0  # speech by a woman's voice, in none
    generated[1, 27] = reference[1, 137] = 5.0  # singing where there is music
    generated[2, 137] = reference[2, 0] = 5.0  # music instead of speech
    assert speech_and_music(generated, reference) == {"speech": 0.25, "music": 0.25}
    assert speech_and_music(reference, reference) == {"speech": 0.0, "music": 0.0}
    assert speech_and_music(generated, reference, threshold=0.999) == {"speech": 0.0, "music": 0.0}
    for wrong in ((generated[:2], reference), (generated[:, :10], reference[:, :10]), (generated[:0], reference[:0])):
        with pytest.raises(ValueError, match="pair"):
            speech_and_music(*wrong)
    with pytest.raises(ValueError, match="threshold must be between 0 and 1"):
        speech_and_music(generated, reference, threshold=1.0)
