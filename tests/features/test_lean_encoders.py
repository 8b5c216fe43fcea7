"""What stands in for packages that are slow to import gives what they give."""

import dataclasses

import pytest
import torch

from mmaudio.features.clip import ClipConfig, ClipEncoder, build_clip, build_text, build_vision, tokenize
from mmaudio.features.frames import clip_frame, short_side_frame

CONFIG = ClipConfig(
    embed_dim=24,
    vision={"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    text={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
    quick_gelu=True,
    frame_size=38,  # rows and columns beyond the last patch, as in the official model
)
PROMPTS = ["a metal ball bounces on wood", "", "Caf\u00e9 &amp; it's  100% \ud55c\uad6d\uc5b4 \U0001f3b7", "x " * 90]


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_towers_are_open_clips(quick_gelu):
    config = dataclasses.replace(CONFIG, quick_gelu=quick_gelu)
    torch.manual_seed(0)
    model, vision, text = build_clip(config), build_vision(config), build_text(config)
    for parameter in model.parameters():  # biases too
        torch.nn.init.normal_(parameter, std=0.2)
    state = model.state_dict()
    vision.load_state_dict({k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")})
    text.load_state_dict({k: v for k, v in state.items() if not k.startswith("visual.")})
    frames = torch.randint(0, 256, (1, 3, 3, 38, 38), dtype=torch.uint8)
    theirs, ours = ClipEncoder(model.visual, model), ClipEncoder(vision, text)
    torch.testing.assert_close(ours.image(frames), theirs.image(frames), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.text(PROMPTS), theirs.text(PROMPTS), rtol=0, atol=1e-6)


def test_tokens_are_open_clips():
    from open_clip import get_tokenizer

    assert torch.equal(tokenize(PROMPTS), get_tokenizer("ViT-H-14-378-quickgelu")(PROMPTS))


@pytest.mark.parametrize("size", [(45, 80), (80, 45), (64, 64), (20, 31)])
def test_resizing_is_torchvisions(size):
    import torchvision.transforms.v2.functional as TF

    def theirs(frame, *size):
        return TF.resize(frame, list(size), interpolation=TF.InterpolationMode.BICUBIC, antialias=True)

    height, width = size
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).permute(2, 0, 1)
    assert torch.equal(clip_frame(64)(frame), theirs(frame, 64, 64))
    short = min(size)
    assert torch.equal(short_side_frame(32)(frame), theirs(frame, int(32 * height / short), int(32 * width / short)))
