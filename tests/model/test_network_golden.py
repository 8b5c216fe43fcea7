"""The flow network against the reference's numbers: float32, CPU, tolerances of golden.json."""

import pytest
import torch
from load import Kit

from mmaudio import flow
from mmaudio.model.layers import TimestepEmbedder, apply_rope, layer_norm, nearest_exact_index, rope_table
from mmaudio.model.network import SIZES, MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K, SPEC_44K
from mmaudio.weights import load_strict

CASES = {case["id"]: case for case in Kit().cases.values()}
SPECS = {"16k": SPEC_16K, "44k": SPEC_44K}


def ids(module):
    return [case_id for case_id, case in CASES.items() if case["module"] == module]


def build(kit, case, part=None):
    config = case["config"].get(part, case["config"]) if part else case["config"]
    if "variant" in config:
        network_config = SIZES[config["variant"]]
    else:
        network_config = MMAudioConfig(
            latent_dim=config["latent_dim"],
            hidden_dim=config["hidden_dim"],
            num_heads=config["num_heads"],
            joint_blocks=config["depth"] - config["fused_depth"],
            fused_blocks=config["fused_depth"],
            v2=config["v2"],
        )
    network = MMAudio(network_config)
    load_strict(network, kit.weights(case, part), source=case["id"])
    return network.eval()


def spec_of(config):
    return SPECS[config["mode"]].with_duration(config.get("duration", 8.0))


def record_intermediates(network, outputs):
    def keep(name, pick=lambda x: x):
        return lambda module, args, result: outputs.__setitem__(name, pick(result).detach().clone())

    hooks = [
        network.audio_input_proj.register_forward_hook(keep("mid.audio_input_proj")),
        network.t_embed.register_forward_hook(keep("mid.t_embed")),
    ]
    for i, block in enumerate(network.joint_blocks):
        last = i == len(network.joint_blocks) - 1
        for j, stream in enumerate(("latent", "clip", "text")):
            if stream == "latent" or not last:
                hooks.append(block.register_forward_hook(keep(f"mid.joint_{i}.{stream}", lambda r, j=j: r[j])))
    for i, block in enumerate(network.fused_blocks):
        hooks.append(block.register_forward_hook(keep(f"mid.fused_{i}.latent")))
    return hooks


# Their lengths are tested at the other rate of the same version.
SLOW = ("flow_v1_16k_10s", "flow_v1_44k_5s", "flow_v2_44k_10s", "flow_v2_16k_5s")


@pytest.mark.parametrize(
    "case_id", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in ids("flow")]
)
@torch.inference_mode()
def test_flow(kit, case_id):
    case = kit.case(case_id)
    config, x = case["config"], kit.inputs(case)
    network, spec = build(kit, case), spec_of(case["config"])
    batch = x["latent"].shape[0]
    outputs = {}

    def keep_conditions(prefix, c):
        outputs.update({
            f"{prefix}.clip_f": c.clip, f"{prefix}.sync_f": c.sync, f"{prefix}.text_f": c.text,
            f"{prefix}.clip_f_c": c.clip_c, f"{prefix}.text_f_c": c.text_c,
        })  # fmt: skip

    conditions = network.encode_conditions(x.get("clip"), x.get("sync"), x.get("text"), spec)
    null = network.null_conditions(batch, spec)
    keep_conditions("cond", conditions)
    if "empty" in config["ops"]:
        keep_conditions("empty", null)
    for t in config["times"]:
        outputs[f"flow.t={t}"] = network.velocity(x["latent"], torch.full((batch,), t), conditions)
    if "predict_mixed_t" in config["ops"]:
        hooks = record_intermediates(network, outputs)
        outputs["flow.t_mixed"] = network.velocity(x["latent"], x["t_mixed"], conditions)
        outputs["mid.global_cond_mlp"] = conditions.global_c
        for hook in hooks:
            hook.remove()
    if "predict_empty" in config["ops"]:
        outputs["flow_empty.t=0.37"] = network.velocity(x["latent"], torch.full((batch,), 0.37), null)
    if "one_cfg_step" in config["ops"]:
        for strength in config["cfg_strengths"]:
            for two_passes in (False, True):
                guided = flow.guided(network, conditions, null, strength, two_passes=two_passes)
                v = guided(torch.tensor(0.37), x["latent"])
                kit.compare(case, {f"ode.t=0.37.cfg={strength}": v})
    if "euler" in config["ops"]:
        guided = flow.guided(network, conditions, null, config["cfg_strength"])
        x1 = flow.euler(guided, x["latent"], config["num_steps"])
        outputs["euler.x1"] = x1
        outputs["euler.x1_unnormalized"] = network.unnormalize(x1)
        outputs["euler.x1_normalized_again"] = network.normalize(network.unnormalize(x1))
    if "euler_negative" in config["ops"]:
        negative = network.null_conditions(batch, spec, x["negative_text"])
        keep_conditions("negative", negative)
        guided = flow.guided(network, conditions, negative, config["cfg_strength"])
        outputs["euler_negative.x1"] = flow.euler(guided, x["latent"], config["num_steps"])
    if "to_prior" in config["ops"]:
        plain = flow.guided(network, conditions, null, 0.0)
        outputs["to_prior.4steps"] = flow.euler(plain, x["latent"], 4, reverse=True)

    compared = {name for name in case["outputs"] if not name.startswith("ode.")}
    assert compared <= set(outputs), compared - set(outputs)
    kit.compare(case, {name: outputs[name] for name in compared})


@pytest.mark.parametrize("case_id", ids("blocks"))
@torch.inference_mode()
def test_blocks(kit, case_id):
    case = kit.case(case_id)
    x, network = kit.inputs(case), build(kit, case)
    rope = rope_table(30, 64), rope_table(8, 64, 30 / 8)
    out = {}
    for i, block in enumerate(network.joint_blocks):
        streams = block(x["latent_tokens"], x["clip_tokens"], x["text_tokens"], x["global_c"], x["extended_c"], *rope)
        out |= {f"joint_{i}.{name}": y for name, y in zip(("latent", "clip", "text"), streams, strict=True)}
    fused = network.fused_blocks[0]
    out["fused_0"] = fused(x["latent_tokens"], x["extended_c"], rope[0])
    out["fused_0.no_rope"] = fused(x["latent_tokens"], x["extended_c"], None)
    out["fused_0.q_norm_of_small_x"] = fused.attn.q_norm(x["head_x"])
    out["final_layer"] = network.final_layer(x["latent_tokens"], x["global_c"])
    out["audio_input_proj"] = network.audio_input_proj(x["latent"])
    for name in ("sync", "clip", "text"):
        out[f"{name}_input_proj"] = getattr(network, f"{name}_input_proj")(x[name])
    kit.compare(case, {name: out[name] for name in case["outputs"]})


@pytest.mark.parametrize("case_id", ids("flow_grad"))
def test_loss_and_gradients(kit, case_id):
    case = kit.case(case_id)
    x, network, spec = kit.inputs(case), build(kit, case), spec_of(case["config"])
    out = {}
    no_video = ~x["video_exist"] | x["null_video"]
    no_text = ~x["text_exist"] | x["null_text"]
    x1 = network.normalize(x["a_mean"] + x["a_std"] * x["eps"])
    xt = flow.interpolate(x["x0"], x1, x["t"])
    v = network(xt, x["t"], x["clip"], x["sync"], x["text"], spec, no_clip=no_video, no_sync=no_video, no_text=no_text)
    per_sample = flow.loss(v, x["x0"], x1)
    loss = per_sample.mean()
    loss.backward()
    out |= {"x1_normalized": x1, "xt": xt, "pred": v, "loss_per_sample": per_sample, "loss": loss.view(1)}
    squares = 0.0
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            out[f"gradnorm/{name}"] = parameter.grad.norm().view(1)
            squares += parameter.grad.double().square().sum()
        else:
            assert parameter.grad is None
    out["gradnorm_total"] = squares.sqrt().view(1)
    out["grad/empty_clip_feat"] = network.empty_clip_feat.grad
    out["grad/sync_pos_emb"] = network.sync_pos_emb.grad
    kit.compare(case, {name: out[name] for name in case["outputs"]})


@pytest.mark.parametrize("case_id", ids("rope"))
def test_rope(kit, case_id):
    case = kit.case(case_id)
    x, c = kit.inputs(case), case["config"]
    latent = rope_table(c["latent_len"], c["head_dim"])
    clip = rope_table(c["clip_len"], c["head_dim"], c["latent_len"] / c["clip_len"])

    def matrices(table):
        cos, sin = table.unbind(-1)
        return torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))[None]

    kit.compare(case, {
        "latent_rot": matrices(latent), "clip_rot": matrices(clip),
        "latent_rotated": apply_rope(x["x_latent"], latent), "clip_rotated": apply_rope(x["x_clip"], clip),
    })  # fmt: skip


@pytest.mark.parametrize("case_id", ids("timestep"))
@torch.inference_mode()
def test_time_embedding(kit, case_id):
    from fill import value_for

    case = kit.case(case_id)
    dim, v2 = case["config"]["dim"], case["config"]["v2"]
    embed = TimestepEmbedder(dim, dim, max_period=1) if v2 else TimestepEmbedder(dim, 256, max_period=10_000)
    state = {k: value_for(f"t_embed.{k}", v.shape, case["fill_seed"]) for k, v in embed.state_dict().items()}
    load_strict(embed, state, source=case_id)
    t = kit.inputs(case)["t"]
    expected = {"freqs": embed.freqs, "embedding": embed.embedding(t), "output": embed(t)}
    kit.compare(case, expected)
    # a cast of the module must not touch the table
    embed.to(torch.bfloat16)
    kit.compare(case, {"freqs": embed.freqs, "embedding": embed.embedding(t)})


def test_noise(kit):
    case = kit.case("noise_cpu_seed42_16k")
    noise = flow.initial_noise([42], (250, 20), device="cpu", dtype=torch.float32)
    kit.compare(case, {"x0": noise})


def test_sequence_lengths(kit):
    rows = kit.json(kit.case("seq_lengths"))["rows"]
    assert len(rows) >= 40
    for mode, duration, *lengths in rows:
        spec = SPECS[mode].with_duration(duration)
        assert [spec.latent_len, spec.clip_len, spec.sync_len, spec.num_samples] == lengths, (mode, duration)


def test_sync_upsample_index(kit):
    stored = kit.json(kit.case("sync_upsample_index"))
    for name, entry in stored.items():
        source, target = map(int, name.split()[-1].split("->"))
        assert nearest_exact_index(source, target).tolist() == entry["index"], name


def test_time_sampling(kit):
    case = kit.case("timestep_sampling")
    z = kit.stored(case)["z"]
    kit.compare(case, {"t": flow.logit_normal(z, case["config"]["mean"], case["config"]["scale"])})
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    drawn = torch.randn(16, generator=generators[0])
    assert torch.equal(flow.sample_times(16, generators[1]), torch.sigmoid(drawn))


def test_layer_norm_has_no_affine_part():
    x = torch.randn(2, 3, 16)
    y = layer_norm(x)
    assert torch.allclose(y.mean(-1), torch.zeros(2, 3), atol=1e-6)
    assert torch.allclose(y.var(-1, unbiased=False), torch.ones(2, 3), atol=1e-3)


def test_nearest_exact_is_torchs():
    for source, target in ((192, 345), (192, 250), (112, 216), (240, 431)):
        x = torch.arange(source, dtype=torch.float32).view(1, 1, -1)
        expected = torch.nn.functional.interpolate(x, size=target, mode="nearest-exact").flatten().long()
        assert torch.equal(nearest_exact_index(source, target), expected)
