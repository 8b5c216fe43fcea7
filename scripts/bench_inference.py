"""Time and memory of every stage of one generation, as a table and as JSON.

    python scripts/bench_inference.py --variant tiny_16k
    python scripts/bench_inference.py --variant small_16k --random_weights --baseline
    python scripts/bench_inference.py --variant large_44k --device cuda --random_weights

The clip is a Foley Stage scene written to a temporary folder. The first run warms up and is not counted; the figures
are medians. `--baseline` solves the same problem in the same process with guidance as two passes and conditions that
are encoded anew at every step, checks that the latents agree, and prints the ratio. `--random_weights` times a variant
whose files are not here: the arithmetic is the same.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from mmaudio import flow
from mmaudio.codec.codec import AudioCodec
from mmaudio.codec.mel import MelSpectrogram
from mmaudio.codec.vae import VAE
from mmaudio.codec.vocoder import BigVGANConfig, GriffinLim, build_bigvgan, fold_weight_norm
from mmaudio.features.clip import build_text, build_vision
from mmaudio.features.synchformer import SynchformerVisual
from mmaudio.model.network import MMAudio
from mmaudio.pipeline import Pipeline
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.variants import VARIANTS

STAGES = ("decode", "CLIP", "sync", "text", "conditions", "solve", "VAE", "vocoder", "mux")


def randomise(pipe: Pipeline) -> None:
    """Put parts with random weights in place of loaded ones. Gates get values too: zeros would be no fair velocity."""
    v = pipe.variant
    torch.manual_seed(0)
    network = MMAudio(v.network)
    for name, parameter in network.named_parameters():
        if "adaLN" in name or name.startswith("final_layer.conv"):
            torch.nn.init.normal_(parameter, std=0.02)
    if isinstance(v.vocoder, BigVGANConfig):
        vocoder = fold_weight_norm(build_bigvgan(v.vocoder)).to(pipe.dtype)
    else:
        vocoder = GriffinLim(v.vocoder)
    codec = AudioCodec(MelSpectrogram(v.mel), VAE(v.vae).fold().to(pipe.dtype), vocoder)
    pipe._parts["codec"] = codec.eval().requires_grad_(False).to(pipe.device)
    parts = {
        "network": network,
        "clip_text": build_text(v.clip),
        "clip_vision": build_vision(v.clip),
        "sync": SynchformerVisual(v.sync),
    }
    for name, part in parts.items():
        pipe._parts[name] = part.eval().requires_grad_(False).to(pipe.device, pipe.dtype)


def synchronised(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.inference_mode()
def compare_with_baseline(pipe: Pipeline, video: Path, args) -> dict[str, float]:
    """Seconds of the solver as it is and as two uncached passes, and how far their latents are apart."""
    inputs = pipe.read(video, duration=args.duration)
    features = pipe.encode(inputs, args.prompt)
    network, spec = pipe.part("network"), inputs.spec
    clip, sync, text, negative = features
    x0 = flow.initial_noise([42], (spec.latent_len, network.config.latent_dim), device=pipe.device, dtype=pipe.dtype)

    def two_passes(t, x):
        times = t.to(x.device).expand(1)
        v = network.velocity(x, times, network.encode_conditions(clip, sync, text, spec))
        v_null = network.velocity(x, times, network.null_conditions(1, spec, negative))
        return args.cfg_strength * v + (1 - args.cfg_strength) * v_null

    def one_pass():
        conditional, null = pipe.conditions(features, spec)
        return flow.euler(flow.guided(network, conditional, null, args.cfg_strength), x0, args.num_steps)

    times, results = {"solve": [], "baseline": []}, {}
    for _ in range(args.repeat + 1):  # alternating, so that a change of the machine's load meets both
        for name, run in (("solve", one_pass), ("baseline", lambda: flow.euler(two_passes, x0, args.num_steps))):
            began = synchronised(pipe.device)
            results[name] = run()
            times[name].append(synchronised(pipe.device) - began)
    seconds = {name: statistics.median(runs[1:]) for name, runs in times.items()}
    difference = (results["solve"] - results["baseline"]).abs().max().item()
    return seconds | {"ratio": seconds["baseline"] / seconds["solve"], "max_difference": difference}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_16k", choices=list(VARIANTS))
    parser.add_argument("--device", default=None)
    parser.add_argument("--weights_dir", default=None)
    parser.add_argument("--random_weights", action="store_true")
    parser.add_argument("--full_precision", action="store_true")
    parser.add_argument("--duration", type=float, default=8.0)
    parser.add_argument("--num_steps", type=int, default=25)
    parser.add_argument("--cfg_strength", type=float, default=4.5)
    parser.add_argument("--prompt", default="a metal ball bounces on wood")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    args = parser.parse_args()

    dtype = torch.float32 if args.full_precision else None
    pipe = Pipeline(args.variant, args.device, dtype, args.weights_dir)
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
        machine = torch.cuda.get_device_name(pipe.device) if pipe.device.type == "cuda" else platform.processor()
        report = {
            "variant": args.variant,
            "device": f"{pipe.device} ({machine or platform.machine()}, {torch.get_num_threads()} threads)",
            "dtype": str(pipe.dtype),
            "duration": args.duration,
            "num_steps": args.num_steps,
            "seconds": {name: statistics.median(run[name] for run in runs[1:]) for name in STAGES},
            "peak_memory_mib": round(peak / 2**20),
            "torch": torch.__version__,
        }
        report["seconds"]["total"] = sum(report["seconds"].values())
        if args.baseline:
            report["baseline"] = compare_with_baseline(pipe, video, args)

    print(f"{report['variant']}, {args.duration:g} s, {args.num_steps} steps, {report['device']}, {report['dtype']}")
    for name, seconds in report["seconds"].items():
        print(f"  {name:12s} {seconds:8.3f} s")
    print(f"  peak memory  {report['peak_memory_mib']:6d} MiB")
    if args.baseline:
        b = report["baseline"]
        print(f"  two uncached passes: {b['baseline']:.3f} s against {b['solve']:.3f} s, ratio {b['ratio']:.2f}")
        print(f"  largest difference of the latents: {b['max_difference']:.2e}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
