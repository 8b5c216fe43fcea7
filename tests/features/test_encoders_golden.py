"""CLIP and Synchformer against the reference's numbers."""

import pytest
import torch

from mmaudio.features.clip import ClipConfig, ClipEncoder, build_clip, tokenize
from mmaudio.features.frames import CLIP_MEAN, CLIP_STD
from mmaudio.features.synchformer import SynchformerConfig, SynchformerVisual
from mmaudio.weights import load_strict


@pytest.mark.parametrize("case_id", ["synchformer_tiny", "synchformer_full"])
@torch.inference_mode()
def test_synchformer(kit, case_id):
    case = kit.case(case_id)
    encoder = SynchformerVisual(SynchformerConfig(**case["config"])).eval()
    load_strict(encoder, kit.weights(case), source=case_id)
    x = kit.inputs(case)
    out = {"features": encoder(x["segments"])}
    if "frames" in x:
        out["frames_features"] = encoder(encoder.segment(x["frames"])).flatten(1, 2)
    kit.compare(case, out)


def test_chunks_and_normalisation_do_not_change_the_features():
    torch.manual_seed(0)
    encoder = SynchformerVisual(SynchformerConfig(embed_dim=32, depth=1, num_heads=2, frame_size=32)).eval()
    frames = torch.randint(0, 256, (2, 41, 3, 32, 32), dtype=torch.uint8)
    whole = encoder.encode(frames, chunk=100)
    assert whole.shape == (2, 8 * 4, 32)
    assert torch.allclose(encoder.encode(frames, chunk=1), whole, atol=1e-5)
    with torch.inference_mode():
        by_hand = encoder(encoder.segment(frames.float() / 127.5 - 1))
    assert torch.allclose(by_hand.flatten(1, 2), whole, atol=1e-5)
    with pytest.raises(ValueError, match="16 frames"):
        encoder.encode(frames[:, :15])


@torch.inference_mode()
def test_clip(kit):
    case = kit.case("clip_tiny")
    config = ClipConfig(quick_gelu=True, frame_size=64, **case["config"])
    model = build_clip(config)
    load_strict(model, kit.weights(case), source="clip_tiny")
    encoder, x = ClipEncoder(model.visual, model), kit.inputs(case)
    out = {"token_ids": tokenize(x["prompts"]), "text_features": encoder.text(x["prompts"])}
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    for name, frames in (("image_features", x["frames"]), ("image_features_oversized", x["frames_oversized"])):
        unnormalised = model.visual((frames.sigmoid() - mean) / std)
        out |= {f"{name}_unnormalised": unnormalised, name: torch.nn.functional.normalize(unnormalised, dim=-1)}
    kit.compare(case, {name: out[name] for name in case["outputs"] if name in out})

    frames = torch.randint(0, 256, (2, 5, 3, 64, 64), dtype=torch.uint8)
    by_hand = torch.nn.functional.normalize(model.visual(((frames / 255 - mean) / std).flatten(0, 1)), dim=-1)
    features = encoder.image(frames, chunk=3)
    assert features.shape == (2, 5, 64)
    assert torch.allclose(features.flatten(0, 1), by_hand, atol=1e-5)
