"""Time, arithmetic and memory of every stage of one generation, as a table and as JSON.

    python scripts/bench_inference.py --variant tiny_16k
    python scripts/bench_inference.py --variant large_44k --device cuda --random_weights
    python scripts/bench_inference.py --variant large_44k --count
    python scripts/bench_inference.py --variant small_16k --random_weights --check --num_steps 4
    python scripts/bench_inference.py --variant large_44k --device cuda --random_weights --compile

The clip is a Foley Stage scene written to a temporary folder. The first run warms up and is not counted; the figures
are medians. Beside each time stand the stage's arithmetic as the method defines it, the weights it reads, and its share
of the limit: the time that a large matrix product with as much arithmetic takes in the same run, divided by the
stage's. Ways that need fewer multiplications than the definition can come out above 100 %. `--count` stops after the
arithmetic, which needs no weights and no time.

`--check` runs solver and codec as the pipeline does and plainly, on the same random features and noise: the plain way
is float32 (convolutions without TF32), with the layers as they are in the files and nothing shared between frames of
equal condition. It prints how far latents, mel and sound are apart and the ratio of the processor's seconds, taken in
turns (of the wall clock's on a GPU), and fails if the latents are further apart than BOUNDS allows. `--random_weights`
serves for variants whose files are not here: the arithmetic is the same.
"""

import argparse
import copy
import dataclasses
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmaudio import flow
from mmaudio.codec.codec import AudioCodec
from mmaudio.codec.mel import MelSpectrogram
from mmaudio.codec.vae import VAE
from mmaudio.codec.vocoder import BigVGANConfig, GriffinLim, build_bigvgan, fold_weight_norm
from mmaudio.compilation import compile_part
from mmaudio.console import machine_name
from mmaudio.data.mixture import row_shapes
from mmaudio.features.clip import build_text, build_vision, causal_mask
from mmaudio.features.synchformer import SynchformerVisual
from mmaudio.few_steps import choose
from mmaudio.loading import load_codec, load_network, speed_up
from mmaudio.model.network import MMAudio
from mmaudio.pipeline import Pipeline
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.variants import VARIANTS, Variant

STAGES = ("decode", "CLIP", "sync", "text", "conditions", "solve", "VAE", "vocoder", "mux")
FEATURES = ("clip", "sync", "text")  # in the order that `MMAudio.encode_conditions` takes them
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # largest difference of latents, of their root mean square


# ---- parts ---------------------------------------------------------------------------------------------------------


def random_network(v: Variant) -> MMAudio:
    """Gates get values too: zeros would be no fair velocity."""
    torch.manual_seed(0)
    network = MMAudio(v.network)
    for name, parameter in network.named_parameters():
        if "adaLN" in name or name.startswith("final_layer.conv"):
            nn.init.normal_(parameter, std=0.02)
    return network.eval().requires_grad_(False)


def random_codec(v: Variant) -> AudioCodec:
    torch.manual_seed(0)
    bigvgan = isinstance(v.vocoder, BigVGANConfig)
    vocoder = fold_weight_norm(build_bigvgan(v.vocoder)) if bigvgan else GriffinLim(v.vocoder)
    return AudioCodec(MelSpectrogram(v.mel), VAE(v.vae).fold(), vocoder).eval().requires_grad_(False)


def as_the_pipeline_has_it(part: MMAudio | AudioCodec, pipe: Pipeline) -> nn.Module:
    device, dtype = pipe.device, pipe.dtype
    part = copy.deepcopy(part).to(device)
    if isinstance(part, AudioCodec):
        part.vae.to(dtype)
        part.vocoder.to(dtype if not isinstance(part.vocoder, GriffinLim) else torch.float32)
    else:
        part.to(dtype)
    if device.type == "cpu" and dtype == torch.float32 and not pipe.low_memory:
        speed_up(part)
    if pipe.compile:
        compile_part(part)
    return part


def randomise(pipe: Pipeline) -> None:
    """Put parts with random weights in place of loaded ones."""
    v = pipe.variant
    for name, part in (("network", random_network(v)), ("codec", random_codec(v))):
        pipe._parts[name] = as_the_pipeline_has_it(part, pipe)
    encoders = {"clip_text": build_text(v.clip), "clip_vision": build_vision(v.clip), "sync": SynchformerVisual(v.sync)}
    for name, part in encoders.items():
        pipe._parts[name] = part.eval().requires_grad_(False).to(pipe.device, pipe.dtype)


# ---- arithmetic ----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def count(v: Variant, duration: float, num_steps: int, passes: int) -> dict[str, dict[str, float]]:
    """Floating-point operations of each stage and the parameters it has, without doing anything: on the meta device."""
    spec, stages = v.spec.with_duration(duration), {}

    def add(stage: str, run, *modules: nn.Module, times: int = 1) -> None:
        with FlopCounterMode(display=False) as counter:
            run()
        parameters = sum(p.numel() for module in modules for p in module.parameters())
        stages[stage] = {"flop": times * counter.get_total_flops(), "parameters": parameters}

    with torch.device("meta"):
        vision, text, sync, network, vae = (
            build_vision(v.clip), build_text(v.clip), SynchformerVisual(v.sync), MMAudio(v.network), VAE(v.vae),
        )  # fmt: skip
        vocoder = build_bigvgan(v.vocoder) if isinstance(v.vocoder, BigVGANConfig) else None
        size, side, words = v.clip.frame_size, v.sync.frame_size, v.network.text_len
        frame, segment = torch.empty(1, 3, size, size), torch.empty(1, 1, v.sync.segment_frames, 3, side, side)
        tokens, latents = torch.empty(2, words, v.clip.text["width"]), torch.empty(1, spec.latent_len, v.vae.latent_dim)
        shapes = row_shapes(dataclasses.replace(v, spec=spec))
        features = [torch.empty(1, *shapes[name]) for name in FEATURES]
        mask, times = causal_mask(words), torch.empty(1)
        add("CLIP", lambda: vision(frame), vision, times=spec.clip_len)
        add("sync", lambda: sync(segment), sync, times=spec.sync_segments)
        add("text", lambda: text.transformer(tokens, attn_mask=mask), text)
        conditions = network.encode_conditions(*features, spec)
        add("conditions", lambda: (network.encode_conditions(*features, spec), network.null_conditions(1, spec)))
        add("solve", lambda: network.velocity(latents, times, conditions), network, times=passes * num_steps)
        add("VAE", lambda: vae.decode(latents.mT), vae.decoder)
        if vocoder is not None:
            add("vocoder", lambda: vocoder(torch.empty(1, v.mel.num_mels, spec.mel_len)), vocoder)
    return stages


def synchronised(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 1536
    a, seconds = torch.randn(n, n, device=device, dtype=dtype), []
    for _ in range(6):
        began = synchronised(device)
        a @ a
        seconds.append(synchronised(device) - began)
    return 2 * n**3 / min(seconds)


# ---- comparison ----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def check(args, pipe: Pipeline) -> dict[str, dict[str, float]]:
    """Solver and codec as the pipeline runs them against the plain ones: seconds, and how far results are apart."""
    v, device, spec = pipe.variant, pipe.device, pipe.variant.spec.with_duration(args.duration)
    network = random_network(v) if args.random_weights else load_network(v, args.weights_dir)
    codec = random_codec(v) if args.random_weights else load_codec(v, args.weights_dir)
    pipe._parts = {
        "network": as_the_pipeline_has_it(network, pipe),
        "codec": as_the_pipeline_has_it(codec, pipe),
    }
    network, codec, c = network.to(device), codec.to(device), v.network

    def random(length: int, width: int) -> Tensor:
        return nn.functional.normalize(torch.randn(1, length, width, device=device), dim=-1)

    torch.manual_seed(1)
    shapes = row_shapes(dataclasses.replace(v, spec=spec))
    features = [random(*shapes[name]) for name in FEATURES]
    noise = torch.randn(1, spec.latent_len, c.latent_dim, device=device)
    strength = args.cfg_strength

    def plainly() -> Tensor:
        branches = network.encode_conditions(*features, spec), network.null_conditions(1, spec)
        return flow.euler(flow.guided(network, *branches, strength), noise, args.num_steps)

    def solved() -> Tensor:
        low = [x.to(pipe.dtype) for x in features]
        branches = (branch.shared() for branch in pipe.conditions((*low, None), spec))
        velocity = flow.guided(pipe.part("network"), *branches, strength, two_passes=pipe.low_memory)
        return flow.euler(velocity, noise.to(pipe.dtype), args.num_steps)

    latents, ours, solve = in_turns(args, device, plainly, solved)
    solve["latents, largest difference"] = (latents - ours).abs().max().item()
    solve["latents, root mean square"] = latents.square().mean().sqrt().item()
    solve["allowed"] = BOUNDS[pipe.dtype] * solve["latents, root mean square"]
    mel, ours, vae = in_turns(
        args, device, lambda: codec.decode_mel(network.unnormalize(latents)),
        lambda: pipe.part("codec").decode_mel(network.unnormalize(latents).to(pipe.dtype)),
    )  # fmt: skip
    vae["mel, mean difference"] = (mel - ours).abs().mean().item()
    wave, ours, vocoder = in_turns(
        args, device, lambda: codec.vocode(mel), lambda: pipe.part("codec").vocode(mel.to(pipe.dtype))
    )
    vocoder["mel of the sound, mean difference"] = (codec.mel(wave[:, 0]) - codec.mel(ours[:, 0])).abs().mean().item()
    return {"solve": solve, "VAE": vae, "vocoder": vocoder}


def in_turns(args, device: torch.device, plain, ours) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Results of both and their times in turns, so that the machine's load meets both alike; the first warm up."""
    clock = time.process_time if device.type == "cpu" else lambda: synchronised(device)
    seconds, results = {"plain": [], "ours": []}, {}
    for _ in range(args.repeat + 1):
        for name, run in (("plain", plain), ("ours", ours)):
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=name == "ours"):
                began = clock()
                results[name] = run()
                seconds[name].append(clock() - began)
    figures = {f"{name}, seconds": min(runs[1:]) for name, runs in seconds.items()}
    figures["times faster"] = figures["plain, seconds"] / figures["ours, seconds"]
    return results["plain"], results["ours"], figures


# ---- the command ---------------------------------------------------------------------------------------------------


def whole_runs(args, pipe: Pipeline) -> tuple[dict[str, float], float]:
    """Median seconds of every stage, and the peak memory in bytes."""
    if args.random_weights:
        randomise(pipe)
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        write_mp4(video, render_clip(2_000_007, size=360, duration=args.duration, audio=False))
        for _ in range(args.repeat + 1):
            if pipe.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(pipe.device)
            generation = pipe(
                video, args.prompt, num_steps=args.num_steps, cfg_strength=args.cfg_strength, duration=args.duration
            )[0]
            began = synchronised(pipe.device)
            generation.save_video(Path(folder) / "out.mp4")
            runs.append(pipe.timings | {"mux": synchronised(pipe.device) - began})
    if pipe.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(pipe.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {name: statistics.median(run[name] for run in runs[1:]) for name in STAGES}, peak


def print_stages(report: dict, counted: dict[str, dict[str, float]], bytes_each: int) -> None:
    print(f"  {'stage':12s} {'seconds':>9s} {'GFLOP':>9s} {'weights':>10s} {'of the limit':>12s}")
    for name in STAGES:
        seconds, known = report.get("seconds", {}).get(name), counted.get(name)
        row = f"  {name:12s} " + (f"{seconds:9.3f} " if seconds is not None else " " * 10)
        if known is not None:
            row += f"{known['flop'] / 1e9:9.1f} {known['parameters'] * bytes_each / 2**20:6.0f} MiB"
            if seconds:
                row += f" {known['flop'] / seconds / report['matrix_product_flops']:11.0%}"
        print(row.rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_16k", choices=list(VARIANTS))
    parser.add_argument("--device", default=None)
    parser.add_argument("--weights_dir", default=None)
    parser.add_argument("--random_weights", action="store_true")
    parser.add_argument("--dtype", choices=list(DTYPES), default=None, help="default: bfloat16 on CUDA, else float32")
    parser.add_argument("--low_memory", action="store_true")
    parser.add_argument("--compile", action="store_true", help="network and codec through torch.compile")
    parser.add_argument("--duration", type=float, default=8.0)
    parser.add_argument("--num_steps", type=int, default=25)
    parser.add_argument("--cfg_strength", type=float, default=4.5)
    parser.add_argument("--prompt", default="a metal ball bounces on wood")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--count", action="store_true", help="only the arithmetic and the weights")
    parser.add_argument("--check", action="store_true", help="compare solver and codec with the plain ones")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    args = parser.parse_args()
    if args.low_memory and args.random_weights:
        parser.error("--low_memory loads its parts again and again: that needs files, not --random_weights")

    dtype = None if args.dtype is None else DTYPES[args.dtype]
    pipe = Pipeline(args.variant, args.device, dtype, args.weights_dir, args.low_memory, compile=args.compile)
    device = pipe.device
    report = {
        "variant": args.variant,
        "device": f"{device} ({machine_name(device)}, {torch.get_num_threads()} threads)",
        "dtype": str(pipe.dtype),
        "duration": args.duration,
        "num_steps": args.num_steps,
        "compile": args.compile,
        "torch": torch.__version__,
    }
    print(f"{args.variant}, {args.duration:g} s, {args.num_steps} steps, {report['device']}, {pipe.dtype}")
    failed = False
    if args.check:
        report["check"] = check(args, pipe)
        for name, figures in report["check"].items():
            print(f"  {name}: " + "; ".join(f"{what} {value:.3g}" for what, value in figures.items()))
        solve = report["check"]["solve"]
        failed = not solve["latents, largest difference"] <= solve["allowed"]  # NaN fails, too
    else:
        by, _ = choose(pipe, args.num_steps, args.cfg_strength)
        guided = args.cfg_strength >= 1 and by == "network" and pipe.variant.network.guidance is None
        report["stages"] = count(pipe.variant, args.duration, args.num_steps, passes=2 if guided else 1)
        if not args.count:
            report["matrix_product_flops"] = matrix_product_rate(device, pipe.dtype)
            report["seconds"], peak = whole_runs(args, pipe)
            report["peak_memory_mib"] = round(peak / 2**20)
        print_stages(report, report["stages"], pipe.dtype.itemsize)
        if not args.count:
            print(f"  all stages   {sum(report['seconds'].values()):9.3f} s")
            print(f"  limit        {report['matrix_product_flops'] / 1e12:9.3f} TFLOP/s in a matrix product")
            print(f"  peak memory  {report['peak_memory_mib']:9d} MiB")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
