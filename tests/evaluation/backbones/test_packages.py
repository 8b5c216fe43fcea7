"""Backbones of optional packages, where these are installed."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from mmaudio.evaluation.backbones import BACKBONES, imagebind, load_backbone
from mmaudio.weights import load_strict

pytestmark = pytest.mark.slow


@pytest.mark.skipif(find_spec("imagebind") is None, reason="needs imagebind-unofficial")
def test_the_official_imagebind_file_loads_strictly(shapes):
    network = imagebind.build_network().to("meta")
    state = {
        key: torch.empty(shape, device="meta") for key, (_, shape) in shapes("imagebind_huge_vision_audio").items()
    }
    state["modality_trunks.text.blocks.0.norm_1.weight"] = torch.empty(1024)
    load_strict(network, state, source="manifest", rename=imagebind.wanted_key)
    for modality, shape in (("vision", (1, 9, 3, 2, 224, 224)), ("audio", (1, 3, 1, 128, 204))):
        assert network({modality: torch.empty(shape, device="meta")})[modality].shape == (1, 1024)


@pytest.mark.skipif(find_spec("audiobox_aesthetics") is None, reason="needs audiobox-aesthetics")
def test_audiobox_gives_the_scores_of_its_package(tmp_path):
    from audiobox_aesthetics.model.aes import AesMultiOutput

    torch.manual_seed(0)
    config = {"proj_num_layer": 5, "proj_ln": True, "proj_act_fn": "gelu", "proj_dropout": 0, "nth_layer": 13}
    config |= {"use_weighted_layer_sum": True, "precision": "32", "normalize_embed": True, "output_dim": 1}
    scale = {axis: {"mean": 5.0, "std": 2.0} for axis in ("PQ", "PC", "CE", "CU")}
    state = AesMultiOutput(**config, target_transform=scale).state_dict()
    content = {"state_dict": {f"model.{key}": x for key, x in state.items()}, "model_cfg": config}
    torch.save(content | {"target_transform": scale}, tmp_path / BACKBONES["audiobox"].files[0].name)
    loaded = load_backbone("audiobox", device="cpu", weights_dir=tmp_path)
    sound = torch.randn(2, 64_000) * 0.1
    (expected,) = loaded.predictor.forward([{"path": sound[:, :48_000], "sample_rate": 16_000}])
    scores = loaded.audio(sound, 16_000, 3.0)["scores"]
    np.testing.assert_allclose(scores, [expected[axis] for axis in ("PQ", "PC", "CE", "CU")], rtol=1e-6)
