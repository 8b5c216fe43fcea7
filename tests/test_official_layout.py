"""Official variants end to end, on files made in the official layout: download, load, demo.

Nothing can fetch the real files here. Small ones have every key of the layout at reduced sizes; `MMAUDIO_SLOW=1` does
the same with the full sizes of small_16k (about 7 GB of disk, several minutes).
"""

import dataclasses
import hashlib
import json

import pytest
import torch
from load import Kit

import mmaudio
from mmaudio import variants
from mmaudio.cli import demo, main
from mmaudio.codec.vae import VAE, VAE_44K, VAEConfig
from mmaudio.codec.vocoder import BIGVGAN_16K
from mmaudio.features.clip import CLIP_DFN5B_H14, ClipConfig, build_clip, build_text, build_vision
from mmaudio.features.synchformer import SynchformerConfig, SynchformerVisual
from mmaudio.model.network import SIZES, MMAudio, MMAudioConfig
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

KIT = Kit()
TINY = KIT.root / "manifests" / "tiny"
OFFICIAL_NETWORKS = [name for name in SIZES if name != "tiny_16k"]


def meta(build):
    with torch.device("meta"):
        return build()


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", OFFICIAL_NETWORKS)
def test_network_manifests(name):
    network = meta(lambda: MMAudio(SIZES[name]))
    assert shapes(network) == KIT.shapes(f"manifests/mmaudio_{name}.json")
    manifest = json.loads((KIT.root / f"manifests/mmaudio_{name}.json").read_text())
    frozen = [key for key, p in network.named_parameters() if not p.requires_grad]
    assert frozen == manifest["frozen_parameters"]


def test_other_manifests():
    assert shapes(meta(lambda: SynchformerVisual())) == KIT.shapes("manifests/synchformer_visual.json")
    clip = KIT.shapes("manifests/clip_dfn5b_vit_h14_378.json")
    assert shapes(meta(lambda: build_clip(CLIP_DFN5B_H14))) == clip
    text, vision = meta(lambda: build_text(CLIP_DFN5B_H14)), meta(lambda: build_vision(CLIP_DFN5B_H14))
    assert shapes(text) == {k: v for k, v in clip.items() if not k.startswith("visual.")}
    assert shapes(vision) == {k[7:]: v for k, v in clip.items() if k.startswith("visual.")}
    assert shapes(meta(lambda: VAE(VAE_44K))) == KIT.shapes("manifests/vae_44k.json")
    assert shapes(meta(lambda: VAE(variants.VAE_16K))) == KIT.shapes("manifests/vae_16k.json")


def small_manifests():
    """A variant with the official layout at small sizes, and the manifests of its files."""
    clip = json.loads((TINY / "clip_e64_v64_t64.json").read_text())["config"]
    base = variants.VARIANTS["small_16k"]
    variant = dataclasses.replace(
        base,
        network=MMAudioConfig(20, 128, 2, 2, 2, clip_dim=64, sync_dim=96, text_dim=64),
        vae=VAEConfig(80, 20, 32),
        vocoder=dataclasses.replace(BIGVGAN_16K, upsample_initial_channel=64),
        clip=ClipConfig(quick_gelu=True, frame_size=70, **clip),
        sync=SynchformerConfig(embed_dim=96, depth=2, num_heads=4),
    )
    tables = {
        "network": shapes(meta(lambda: MMAudio(variant.network))),
        "vae": KIT.shapes("manifests/tiny/vae_80_20_32.json"),
        "vocoder": KIT.shapes("manifests/tiny/bigvgan_16k_c64.json"),
        "clip": KIT.shapes("manifests/tiny/clip_e64_v64_t64.json"),
        "sync": KIT.shapes("manifests/tiny/synchformer_e96_d2_h4.json")
        | {"afeat_extractor.x": (3,), "vproj.bias": (2,)},
    }
    return variant, tables


def full_manifests():
    return variants.VARIANTS["small_16k"], {
        "network": KIT.shapes("manifests/mmaudio_small_16k.json"),
        "vae": KIT.shapes("manifests/vae_16k.json"),
        "vocoder": KIT.shapes("manifests/bigvgan_16k.json"),
        "clip": KIT.shapes("manifests/clip_dfn5b_vit_h14_378.json"),
        "sync": KIT.shapes("manifests/synchformer_official_full.json"),
    }


def write_official_files(folder, variant, tables):
    """`.pth` files as released, legacy tables included; returns the variant with their checksums."""
    from fill import fill_state_dict

    files = {}
    for part, table in tables.items():
        state = fill_state_dict(table, seed=7)
        if part == "vae":
            constants = json.loads((KIT.root / "constants.json").read_text())["80"]
            state |= {name: torch.tensor(constants[name]).view(1, -1, 1) for name in ("data_mean", "data_std")}
        if part == "network":
            state |= {"t_embed.freqs": torch.zeros(128), "latent_rot": torch.zeros(1), "clip_rot": torch.zeros(1)}
            # Small velocities: random ones would leave the range that the codec can decode.
            state |= {key: 0.1 * value for key, value in state.items() if key.startswith("final_layer.conv")}
        file = getattr(variant.files, part)
        torch.save({"generator": state} if part == "vocoder" else state, folder / file.name)
        digest = hashlib.md5((folder / file.name).read_bytes()).hexdigest()
        files[part] = dataclasses.replace(file, md5=digest, size=None)
        del state
    return dataclasses.replace(variant, files=variants.Files(**files))


@pytest.mark.parametrize("manifests", [small_manifests, pytest.param(full_manifests, marks=pytest.mark.slow)])
def test_download_load_demo(manifests, server, tmp_path, monkeypatch, capsys):
    served, url = server
    variant = write_official_files(served, *manifests())
    monkeypatch.setitem(variants.VARIANTS, "small_16k", variant)
    monkeypatch.setenv("MMAUDIO_MIRROR", url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    weights = tmp_path / "weights"

    assert main(["download", "small_16k", "--weights_dir", str(weights)]) == 0
    assert len(capsys.readouterr().out.split()) == 5
    assert {p.name for p in weights.iterdir() if not p.name.startswith(".")} == {p.name for p in served.iterdir()}

    video = tmp_path / "clip.mp4"
    write_mp4(video, render_clip(5, size=96, duration=1, audio=False))
    arguments = ["--variant", "small_16k", "--weights_dir", str(weights), "--video", str(video), "--prompt", "rain"]
    assert demo([*arguments, "--num_steps", "2", "--output", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"clip.flac", "clip.mp4"}

    pipe = mmaudio.load("small_16k", weights_dir=weights, device="cpu")
    generation = pipe(video=video, prompt="rain", num_steps=2)[0]
    assert generation.audio.shape == (1, 16_000)
    assert generation.audio.abs().max() > 0

    # the converted network is taken instead, and says the same
    assert main(["convert", str(weights / "mmaudio_small_16k.pth")]) == 0
    (weights / "mmaudio_small_16k.pth").unlink()
    converted = mmaudio.load("small_16k", weights_dir=weights, device="cpu")
    before, after = (p.part("network").state_dict() for p in (pipe, converted))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    # not to the bit on every processor: mapped weights begin elsewhere in memory, and kernels are chosen by that, too
    again = converted(video=video, prompt="rain", num_steps=2)[0]
    assert torch.allclose(again.latents, generation.latents, atol=1e-5)


def test_wrong_checksum(server, tmp_path, monkeypatch, capsys):
    served, url = server
    variant = write_official_files(served, *small_manifests())
    with (served / "v1-16.pth").open("r+b") as f:
        f.seek(2000)
        f.write(b"\0\1\2\3")
    monkeypatch.setitem(variants.VARIANTS, "small_16k", variant)
    monkeypatch.setenv("MMAUDIO_MIRROR", url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    weights = tmp_path / "weights"
    assert main(["download", "small_16k", "--weights_dir", str(weights)]) == 2
    captured = capsys.readouterr()
    assert len([line for line in captured.err.splitlines() if line.startswith("error:")]) == 1
    assert "v1-16.pth" in captured.err
    assert not (weights / "v1-16.pth").exists()
