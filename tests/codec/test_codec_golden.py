"""Mel, VAE and vocoders against the reference's numbers."""

import json

import pytest
import torch
from load import Kit

from mmaudio import flow
from mmaudio.codec.codec import AudioCodec
from mmaudio.codec.mel import MEL_16K, MEL_44K, MelSpectrogram
from mmaudio.codec.vae import VAE, VAE_16K, VAE_44K, MPConv1d, VAEConfig, mp_silu, mp_sum, normalize
from mmaudio.codec.vocoder import BIGVGAN_16K, BIGVGAN_44K, load_bigvgan
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K, SPEC_44K
from mmaudio.weights import WeightError, load_strict

KIT = Kit()
MELS = {"16k": MEL_16K, "44k": MEL_44K}
CONSTANTS = json.loads((KIT.root / "constants.json").read_text())


def ids(module):
    return [c["id"] for c in KIT.cases.values() if c["module"] == module]


def load_vae(kit, case, config, part=None):
    weights = kit.weights(case, part)
    stats = CONSTANTS[str(config.mel_dim)]
    weights |= {name: torch.tensor(stats[name]).view(1, -1, 1) for name in ("data_mean", "data_std")}
    vae = VAE(config)
    load_strict(vae, weights, source=case["id"])
    return vae.eval()


def load_vocoder(kit, case, family, part=None, **changes):
    import dataclasses

    config = dataclasses.replace({"16k": BIGVGAN_16K, "44k": BIGVGAN_44K}[family], **changes)
    return load_bigvgan(config, kit.weights(case, part), source=case["id"])


@pytest.mark.parametrize("case_id", ids("mel"))
def test_mel(kit, case_id):
    case = kit.case(case_id)
    config = MELS[case["config"]["mode"]]
    mel = MelSpectrogram(config)
    silence = torch.zeros(1, 3 * config.hop_length)
    kit.compare(case, {
        "mel": mel(kit.inputs(case)["waveform"]), "mel_silence": mel(silence), "mel_basis": mel.mel_basis,
    })  # fmt: skip


def test_mel_clamps_and_counts_frames():
    mel = MelSpectrogram(MEL_16K)
    loud = torch.full((1, 4096), 3.0)
    assert torch.equal(mel(loud), mel(torch.ones(1, 4096)))
    assert mel(torch.zeros(1, 128_000)).shape == (1, 80, 500)


@pytest.mark.parametrize("case_id", ids("vae"))
@pytest.mark.parametrize("folded", [False, True])
@torch.inference_mode()
def test_vae(kit, case_id, folded):
    case = kit.case(case_id)
    c = case["config"]
    config = VAE_16K if "variant" in c else VAEConfig(c["data_dim"], c["embed_dim"], c["hidden_dim"])
    vae, x = load_vae(kit, case, config), kit.inputs(case)
    out = {
        "raw_weight_encoder_conv_in": vae.encoder.conv_in.weight.clone(),
        "effective_weight_encoder_conv_in": vae.encoder.conv_in.effective_weight().clone(),
    }
    if folded:
        vae.fold()
        assert torch.equal(vae.encoder.conv_in.effective_weight(), vae.encoder.conv_in.weight)
        out["effective_weight_encoder_conv_in"] = vae.encoder.conv_in.weight
    posterior = vae.encode(x["mel"])
    out |= {"encode_mean": posterior.mean, "encode_std": posterior.std, "decode": vae.decode(x["latent"])}
    out["decode_normalised_domain"] = vae.decoder(x["latent"])
    out["encode_raw_mean"] = vae.encoder(x["mel"]).chunk(2, dim=1)[0]
    if "mel_odd" in x:
        out["encode_odd_mean"] = vae.encode(x["mel_odd"]).mean
    kit.compare(case, {name: out[name] for name in case["outputs"]})


def test_vae_weight_norm(kit):
    case = kit.case("vae_weight_norm")
    x = kit.inputs(case)
    conv = MPConv1d(16, 24, 3)

    def reset(training):
        conv.weight.data.copy_(x["raw_weight"])
        conv.train(training)

    out = {"pixel_norm": normalize(x["x"], (1,)), "mp_silu": mp_silu(x["x"])}
    out["mp_sum_0.3"] = mp_sum(x["x"], x["x"].flip(-1), 0.3)
    reset(training=True)
    out["training_forward"] = conv(x["x"])
    out["forced_weight"] = conv.weight.detach().clone()
    out["effective_weight_training"] = conv.effective_weight()
    reset(training=True)
    out["training_forward_gain_1.25"] = conv(x["x"], gain=1.25)
    reset(training=False)
    conv.fold()
    out["effective_weight_inference"] = conv.weight
    out["inference_forward"] = conv(x["x"])
    kit.compare(case, out)

    reset(training=True)  # gradients flow through the normalisation, not through the overwriting
    conv.folded = False
    conv(x["x"]).square().sum().backward()
    assert conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("case_id", ids("bigvgan"))
@torch.inference_mode()
def test_bigvgan(kit, case_id):
    case = kit.case(case_id)
    family = case["config"]["family"]
    changes = {} if case["config"].get("full") else {"upsample_initial_channel": 64}
    x = kit.inputs(case)
    vocoder = load_vocoder(kit, case, family, **changes)
    wave = vocoder(x["mel"])
    out = {"waveform": wave}
    if "act_x" in x:
        up, down = vocoder.activation_post.upsample.filter, vocoder.activation_post.downsample.lowpass.filter
        activation = vocoder.activation_post
        out |= {"filter_up": up, "filter_down": down, "after_conv_pre": vocoder.conv_pre(x["mel"])}
        out["ups_0_weight_after_removal"] = vocoder.ups[0][0].weight
        if x["act_x"].shape[1] == activation.act.alpha.numel():
            out["activation_post_of_x"] = activation(x["act_x"])
    kit.compare(case, out)

    if changes:  # every key layout in circulation gives the same waveform
        legacy = kit.weights(case)
        parametrised = {
            k.replace("weight_g", "parametrizations.weight.original0").replace(
                "weight_v", "parametrizations.weight.original1"
            ): v
            for k, v in legacy.items()
        }
        folded = {k: v for k, v in vocoder.state_dict().items() if not k.endswith(".filter")}
        import dataclasses

        config = dataclasses.replace({"16k": BIGVGAN_16K, "44k": BIGVGAN_44K}[family], **changes)
        for layout in (parametrised, folded):
            again = load_bigvgan(config, layout, source="layout")(x["mel"])
            assert torch.allclose(again, wave, atol=1e-6)
        with pytest.raises(WeightError):
            load_bigvgan(config, dict(list(legacy.items())[5:]), source="incomplete")


@pytest.mark.parametrize("case_id", ids("e2e"))
@torch.inference_mode()
def test_decoder_chain(kit, case_id):
    case = kit.case(case_id)
    c, x = case["config"], kit.inputs(case)
    n, mode = c["net"], c["mode"]
    network = MMAudio(
        MMAudioConfig(n["latent_dim"], n["hidden_dim"], n["num_heads"], n["depth"] - n["fused_depth"], n["fused_depth"],
                      v2=n["v2"])
    ).eval()  # fmt: skip
    load_strict(network, kit.weights(case, "net"), source=case_id)
    vae_config = VAEConfig(c["vae"]["data_dim"], c["vae"]["embed_dim"], c["vae"]["hidden_dim"])
    codec = AudioCodec(
        MelSpectrogram(MELS[mode]),
        load_vae(kit, case, vae_config, "vae").fold(),
        load_vocoder(kit, case, mode, "vocoder", upsample_initial_channel=64),
    )
    spec = {"16k": SPEC_16K, "44k": SPEC_44K}[mode].with_duration(n["duration"])
    conditions = network.encode_conditions(x["clip"], x["sync"], x["text"], spec)
    null = network.null_conditions(1, spec, x["negative_text"])
    velocity = flow.guided(network, conditions, null, c["cfg_strength"])
    latent = network.unnormalize(flow.euler(velocity, x["x0"], c["num_steps"]))
    kit.compare(case, {"latent": latent, "mel": codec.decode_mel(latent), "waveform": codec.decode(latent)})


def test_44k_vae_matches_manifest():
    shapes = KIT.shapes("manifests/vae_44k.json")
    with torch.device("meta"):
        vae = VAE(VAE_44K)
    assert {k: tuple(v.shape) for k, v in vae.state_dict().items()} == shapes
