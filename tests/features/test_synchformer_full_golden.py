"""Synchformer's audio half and offset head against the reference's numbers, and its file against the manifest."""

import fill
import pytest
import torch

from mmaudio.features.synchformer import SynchformerConfig
from mmaudio.features.synchformer_audio import SynchformerAudio, SynchformerAudioConfig, mel_segments
from mmaudio.features.synchformer_offset import (
    OffsetHead,
    OffsetHeadConfig,
    Synchformer,
    SynchformerModelConfig,
    official_key,
    offset_grid,
    own_key,
)
from mmaudio.loading import load_synchformer
from mmaudio.variants import get_variant
from mmaudio.weights import WeightError, load_strict, save_safetensors

MANIFEST = "manifests/synchformer_official_full.json"
SMALL = SynchformerModelConfig(
    SynchformerConfig(embed_dim=32, depth=1, num_heads=2, frame_size=32),
    SynchformerAudioConfig(embed_dim=32, depth=1, num_heads=2),
    OffsetHeadConfig(embed_dim=32, depth=1, num_heads=2),
)


def test_the_official_file_loads_strictly_as_one_model(kit):
    with torch.device("meta"):
        model = Synchformer()
        state = {key: torch.empty(shape) for key, shape in kit.shapes(MANIFEST).items()}
    assert {official_key(key): tuple(x.shape) for key, x in model.state_dict().items()} == kit.shapes(MANIFEST)
    load_strict(model, state, source="manifest", rename=own_key)
    frozen = {official_key(key) for key, x in model.named_parameters() if not x.requires_grad}
    assert frozen == {"vfeat_extractor.patch_embed.proj.weight", "vfeat_extractor.patch_embed.proj.bias"}
    state["other"] = state.pop("transformer.off_head.bias")
    with pytest.raises(WeightError, match=r"1 keys missing .*off_head.*1 keys unexpected \(other"):
        load_strict(model, state, source="manifest", rename=own_key)


@torch.inference_mode()
def test_audio_half_and_head(kit):
    case = kit.case("sync_head_full")
    shapes = {key: shape for key, shape in kit.shapes(MANIFEST).items() if not key.startswith("vfeat_extractor.")}
    state = fill.fill_state_dict(shapes, case["fill_seed"])
    with torch.device("meta"):
        audio, head = SynchformerAudio().eval(), OffsetHead().eval()
    is_audio = lambda key: key.startswith("afeat_extractor.")  # noqa: E731
    load_strict(audio, state, source="audio", rename=lambda key: key if is_audio(key) else None)
    load_strict(head, state, source="head", rename=lambda key: None if is_audio(key) else key)
    x = kit.inputs(case)
    kit.compare(
        case,
        {
            "offset_logits": head(x["vis"], x["aud"]),
            "audio_mel_segments": mel_segments(x["waveform"]),
            "audio_features": audio.encode(x["waveform"], chunk=3),
        },
    )


def test_offset_grid_and_desync(kit):
    case = kit.case("desync")
    golden, n, seed = kit.json(case), case["config"]["n"], case["config"]["seed"]
    assert offset_grid().tolist() == pytest.approx(golden["grid"])
    logits = torch.stack([fill.tensor(f"desync.{part}", (n, 21), seed, 2.0) for part in ("first", "last")])
    assert offset_grid()[logits.argmax(-1)].abs().mean().item() == pytest.approx(golden["desync"], rel=1e-6)


def test_whole_model_is_its_parts():
    torch.manual_seed(0)
    model = Synchformer(SMALL).eval()
    frames, waveform = torch.randint(0, 256, (2, 120, 3, 32, 32), dtype=torch.uint8), torch.randn(2, 76_800)
    video, audio = model.visual.encode(frames), model.audio.encode(waveform, chunk=5)
    assert audio.shape == (2, 14, 6, 32)
    with torch.inference_mode():
        logits = model(frames, waveform)
        assert logits.shape == (2, 21)
        assert torch.allclose(model.head(video.unflatten(1, (14, 8)), audio), logits, atol=1e-5)
    with pytest.raises(ValueError, match="exactly 14 segments of picture and of sound, got 14 and 13"):
        model.head(video.unflatten(1, (14, 8)), audio[:, :13])
    with pytest.raises(ValueError, match="at least 10240 samples at 16 kHz, got 10239"):
        model.audio.encode(waveform[:, :10_239])


def test_mel_is_float32_under_autocast():
    waveform = torch.randn(1, 15_360)
    with torch.autocast("cpu", torch.bfloat16):
        mel = mel_segments(waveform)
    assert mel.dtype == torch.float32
    assert torch.equal(mel, mel_segments(waveform))


def test_load_synchformer(tmp_path):
    tiny = get_variant("tiny_16k")
    with pytest.raises(WeightError, match=r"tiny_16k_sync.*keys missing \(audio\.afeat_extractor"):
        load_synchformer(tiny)
    torch.manual_seed(0)
    state = {official_key(key): x for key, x in Synchformer(tiny.synchformer).state_dict().items()}
    save_safetensors(tmp_path / "tiny_16k_sync.safetensors", state)
    loaded = load_synchformer(tiny, tmp_path)
    assert not loaded.training
    assert torch.equal(loaded.head.transformer.OFF_tok, state["transformer.OFF_tok"])
