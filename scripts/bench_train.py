"""Speed of training the flow network, on synthetic features, as a table and as JSON.

    python scripts/bench_train.py --variant tiny_16k --batch_size 4 --compare
    python scripts/bench_train.py --variant small_16k --batch_size 512 --compile
    torchrun --standalone --nproc_per_node=8 scripts/bench_train.py --variant large_44k --batch_size 512 --strategy fsdp

A feature store of random features is written to a temporary folder (at most 65 MB) and read back as training does it;
the steps are those of `train.py`. The first steps warm up and are not counted; the figures are medians. The features
are in the machine's memory after the warm-up, so the speed of its disk does not come in: training asks it for
`bytes per sample` times `samples/s`.

`--compare` also trains the same network with a plain loop, on the same batches with the same random numbers: float32
features in the reference implementation's layout (160 MB more), null conditions put into copies of the features outside
of the network, averages updated tensor by tensor, never compiled or sharded, attention as torch chooses it. Both loops
take turns, so that a change of the machine's load meets both. Their losses must agree. On a CPU both are busy with the
same matrix products, so their ratio is near 1 there, and what differs is the bytes.

Model FLOP utilisation (MFU) counts matrix products, convolutions and attention of one forward and backward pass,
against the peak of the GPU for dense matrices in the precision used.
"""

import argparse
import contextlib
import copy
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from mmaudio import flow
from mmaudio.console import error_line, expected_errors, log, machine_name
from mmaudio.data.loader import loader
from mmaudio.data.mixture import FeatureBatch, Mixture, row_shapes
from mmaudio.data.sampler import GlobalBatches, Split
from mmaudio.data.store import FIELDS, FeatureStore, StoreRow, write_store
from mmaudio.data.store.layout import REFERENCE_NAMES
from mmaudio.model.network import MMAudio
from mmaudio.training.compilation import compile_blocks
from mmaudio.training.config import DataConfig, DataEntry, TrainConfig
from mmaudio.training.distributed import STRATEGIES, RankError, Ranks, ranks
from mmaudio.training.ema import beta, gamma
from mmaudio.training.loop import Meter, Stop, TrainingState
from mmaudio.training.numerics import autocast, set_up_numerics, uses_bf16
from mmaudio.training.optimizer import learning_rate
from mmaudio.training.task import Draw, Task
from mmaudio.training.tasks.flow import FlowLoss, build
from mmaudio.training.tracking import peak_memory
from mmaudio.variants import VARIANTS, Variant

ROWS, CAPTIONS = 128, 16  # of the store
WARM_UP = 2  # steps
TIMEOUT = 600.0  # seconds that a rank waits for the others
TOLERANCE = {True: 1e-2, False: 1e-4}  # relative, of the two loops' losses; bf16 or not
PEAKS = {  # in the device's name -> FLOP/s of dense matrix products in bfloat16 and in TF32, by the makers' data sheets
    "H200": (989e12, 495e12),
    "H100 PCIe": (756e12, 378e12),
    "H100": (989e12, 495e12),
    "A100": (312e12, 156e12),
    "L40S": (362e12, 183e12),
}


# ---- data


def write_features(folder: Path, variant: Variant) -> None:
    """A store of random features, of unit norm where real ones are."""
    generator, shapes = torch.Generator().manual_seed(0), row_shapes(variant)

    def normal(name: str) -> Tensor:
        return torch.randn(shapes[name], generator=generator)

    def rows() -> Iterator[StoreRow]:
        for i in range(ROWS):
            std = 0.1 + normal("std").abs()
            clip = normalize(normal("clip"), dim=-1)
            yield StoreRow(f"clip{i}", f"caption {i % CAPTIONS}", normal("mean"), std, clip, normal("sync"))

    texts = [(text, normalize(normal("text"), dim=-1)) for text in ["", *(f"caption {i}" for i in range(CAPTIONS))]]
    write_store(folder, rows(), texts, count=ROWS, variant=variant.base, spec=variant.spec, identity={})


def write_reference_layout(folder: Path, store: FeatureStore) -> None:
    """The same values as the reference implementation keeps them: float32, a text for every row."""
    from tensordict import TensorDict

    rows = store.rows(list(range(len(store))))
    TensorDict({REFERENCE_NAMES[name]: getattr(rows, name).float() for name in FIELDS}, []).memmap(folder)
    lines = [f"{name}\t{caption}\n" for name, caption in zip(rows.ids, rows.captions, strict=True)]
    folder.with_name(f"{folder.name}.tsv").write_text("id\tlabel\n" + "".join(lines))


def bytes_per_sample(mixture: Mixture) -> dict[str, int]:
    """What is read for a training sample, and what it would be in the reference's layout."""
    values = {name: math.prod(shape) for name, shape in mixture.shapes.items()}
    read = sum(count * mixture.dtypes[name].itemsize for name, count in values.items())
    return {"read": read, "reference": sum(values.values()) * torch.float32.itemsize}


@contextlib.contextmanager
def shared_folder(here: Ranks) -> Iterator[tuple[Path, bool]]:
    """A temporary folder of one name on all nodes, and whether this rank is the one that writes on its node."""
    writes = int(os.environ.get("LOCAL_RANK", 0)) == 0
    name = [tempfile.mkdtemp(prefix="bench_train_") if here.is_main else None]
    if here.world > 1:
        dist.broadcast_object_list(name)
    folder = Path(name[0])
    try:
        yield folder, writes
    finally:
        if writes:
            shutil.rmtree(folder, ignore_errors=True)


# ---- the two loops


def batches(source: Mixture, config: TrainConfig, split: Split, here: Ranks) -> Iterator[FeatureBatch]:
    order = GlobalBatches(source, split, config.seed)
    return loader(source, order, config.num_workers, pin_memory=here.device.type == "cuda")


class RealLoop:
    """The steps that `train.py` makes."""

    def __init__(self, task: Task, config: TrainConfig, here: Ranks):
        self.here, self.split = here, Split(config.batch_size, here.rank, here.world)
        if config.compile:
            compile_blocks(task, config, here, self.split, log if here.is_main else lambda line: None)
        self.state = TrainingState(task, config, here)
        self.batches = batches(task.train, config, self.split, here)
        self.meter, self.steps = Meter(config.batch_size), 0

    def step(self) -> None:
        self.meter.reset()
        micros = self.meter.waiting_for(lambda: [next(self.batches).to(self.here.device)])
        if not self.state.step(self.steps, micros, self.split, Stop(), self.meter):
            raise ValueError(f"step {self.steps} was not finite")
        self.steps += 1

    @property
    def waited(self) -> float:
        """Seconds of the last step that went into waiting for its data."""
        return self.meter.waited

    def loss(self) -> float:
        """Of the last step; all ranks call it."""
        return self.here.total(self.meter.sums["loss"].item())[0] / self.here.world


class PlainLoop:
    """The same arithmetic, written down without a thought of speed."""

    def __init__(self, task: Task, config: TrainConfig, here: Ranks, features: Path):
        self.config, self.here, self.flow_loss = config, here, task.loss
        self.split = Split(config.batch_size, here.rank, here.world)
        self.network = copy.deepcopy(task.network).to(here.device).train()
        self.wrapped = DistributedDataParallel(self.network) if here.world > 1 else self.network
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        settings, eps = config.optimizer, 1e-6 if uses_bf16(config.precision, here.device) else 1e-8
        betas, decay = tuple(settings.betas), settings.weight_decay
        self.optimizer = torch.optim.AdamW(self.parameters, settings.lr, betas, eps, decay)
        self.averages = [copy.deepcopy(self.network.state_dict()) for _ in config.ema.sigma_rels]
        [entry] = config.data.train
        source = Mixture([DataEntry(store=str(features), weight=entry.weight)])
        self.batches = batches(source, config, self.split, here)
        self.steps = 0

    def step(self) -> None:
        batch = next(self.batches).to(self.here.device)
        draw = Draw(self.config.seed, self.steps, self.config.batch_size, self.split.rows(0), self.here.device)
        with autocast(self.config.precision, self.here.device):
            self.last = plain_loss(self.network, self.wrapped, self.flow_loss, batch, draw)
        self.last.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, self.config.optimizer, self.config.steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        for sigma_rel, average in zip(self.config.ema.sigma_rels, self.averages, strict=True):
            stays = beta(self.steps, gamma(sigma_rel))
            for name, value in self.network.state_dict().items():
                average[name].lerp_(value, 1 - stays)

    def loss(self) -> float:
        """Of the last step; all ranks call it."""
        return self.here.total(self.last.item())[0] / self.here.world


def plain_loss(network: MMAudio, wrapped: nn.Module, loss: FlowLoss, batch: FeatureBatch, draw: Draw) -> Tensor:
    """What `loss` is, with the same draws in the same order; `wrapped` is the network as it is called."""
    x1 = loss.latents(batch, draw)
    t = flow.logit_normal(draw.normal())
    x0 = draw.normal(*x1.shape[1:])
    no_clip = draw.uniform() < loss.drop
    no_sync = draw.uniform() < loss.drop if loss.independent else no_clip
    no_text = draw.uniform() < loss.drop

    clip, sync, text = batch.clip.clone(), batch.sync.clone(), batch.text.clone()
    clip[~batch.video_exist] = network.empty_clip_feat
    sync[~batch.video_exist] = network.empty_sync_feat
    text[~batch.text_exist] = network.empty_string_feat
    clip, sync, text = clip.clone(), sync.clone(), text.clone()
    clip[no_clip], sync[no_sync] = network.empty_clip_feat, network.empty_sync_feat
    text[no_text] = network.empty_string_feat
    v = wrapped(flow.interpolate(x0, x1, t), t, clip, sync, text, loss.spec)
    return flow.loss(v, x0, x1).mean()


# ---- measuring


def synchronised(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(loop: RealLoop | PlainLoop) -> float:
    """Seconds of a step."""
    began = synchronised(loop.here.device)
    loop.step()
    return synchronised(loop.here.device) - began


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def measure(loop: RealLoop, steps: int) -> dict:
    for _ in range(WARM_UP):
        timed(loop)
    if loop.here.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(loop.here.device)
    seconds, waited = [], 0.0
    for _ in range(steps):
        seconds.append(timed(loop))
        waited += loop.waited
    return {
        "samples_per_second": loop.split.batch_size / statistics.median(seconds),
        "seconds_per_step": spread(seconds),
        "data_wait": waited / sum(seconds),
        "peak_memory_gib": peak_memory(loop.here.device),
    }


def compare(real: RealLoop, plain: PlainLoop, steps: int, bf16: bool) -> dict:
    """Both loops by turns, from their first step on."""
    seconds, losses = {"real": [], "plain": []}, {"real": [], "plain": []}
    for _ in range(WARM_UP + steps):
        for name, loop in (("real", real), ("plain", plain)):
            seconds[name].append(timed(loop))
            losses[name].append(loop.loss())
    for ours, theirs in zip(losses["real"], losses["plain"], strict=True):
        if not math.isclose(ours, theirs, rel_tol=TOLERANCE[bf16]):
            raise ValueError(f"the two loops compute different things: losses {ours:.6f} and {theirs:.6f}")
    times = {name: spread(values[WARM_UP:]) for name, values in seconds.items()}
    return {
        "seconds_per_step": times,
        "ratio": times["plain"]["median"] / times["real"]["median"],
        "losses": losses,
    }


def flops_per_sample(variant: Variant) -> int:
    """Of one forward and backward pass; on the meta device, which only sees shapes."""
    with torch.device("meta"):
        network, t = MMAudio(variant.network), torch.zeros(1)
        x = {name: torch.zeros(1, *shape) for name, shape in row_shapes(variant).items()}
    with FlopCounterMode(display=False) as counter:
        network(x["mean"], t, x["clip"], x["sync"], x["text"], variant.spec).sum().backward()
    return counter.get_total_flops()


def peak_flops(device: torch.device, bf16: bool) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak[0 if bf16 else 1] for known, peak in PEAKS.items() if known in name), None)


def bench(args: argparse.Namespace, here: Ranks) -> dict:
    """The report; all ranks make it."""
    set_up_numerics(here.device)
    variant, bf16 = VARIANTS[args.variant], uses_bf16(args.precision, here.device)
    with shared_folder(here) as (folder, writes):
        if writes:
            write_features(folder / "store", variant)
            if args.compare:
                write_reference_layout(folder / "reference", FeatureStore(folder / "store"))
        here.wait()
        entry = DataEntry(store=str(folder / "store"), weight=math.ceil(args.batch_size / ROWS))
        config = TrainConfig(
            variant=args.variant, data=DataConfig(train=[entry]), batch_size=args.batch_size,
            precision=args.precision, compile=args.compile, strategy=args.strategy, num_workers=args.num_workers,
        )  # fmt: skip
        task = build(config, here.device)
        for name, parameter in task.network.named_parameters():
            if "adaLN" in name or name.startswith("final_layer.conv"):  # zeros at first, which would hide mistakes
                nn.init.normal_(parameter, std=0.02)
        plain = PlainLoop(task, config, here, folder / "reference") if args.compare else None
        real = RealLoop(task, config, here)
        comparison = compare(real, plain, args.steps, bf16) if plain else None
        plain = None  # its memory is not training's
        figures = measure(real, args.steps)
        flops, peak = flops_per_sample(variant), peak_flops(here.device, bf16)
        on_gpu = here.device.type == "cuda"
        return {
            "variant": args.variant,
            "device": f"{here.world} x {here.device.type} ({machine_name(here.device)})",
            "precision": "bf16" if bf16 else "tf32" if on_gpu else "fp32",
            "strategy": args.strategy,
            "compile": args.compile,
            "batch_size": args.batch_size,
            "num_workers": args.num_workers,
            "steps": args.steps,
            **figures,
            "flops_per_sample": flops,
            "flops_per_second": flops * figures["samples_per_second"] / here.world,
            "mfu": flops * figures["samples_per_second"] / here.world / peak if peak else None,
            "bytes_per_sample": bytes_per_sample(task.train),
            "torch": torch.__version__,
        } | ({"compare": comparison} if comparison else {})


def print_report(report: dict) -> None:
    seconds, size = report["seconds_per_step"], report["bytes_per_sample"]
    print(
        f"{report['variant']}, batches of {report['batch_size']}, {report['device']}, {report['precision']}, "
        f"{report['strategy']}, {'compiled' if report['compile'] else 'not compiled'}"
    )
    print(f"  samples/s         {report['samples_per_second']:10.2f}")
    print(f"  seconds per step  {seconds['median']:10.3f}   ({seconds['min']:.3f} to {seconds['max']:.3f})")
    mfu = f"{report['mfu']:.1%} of its peak" if report["mfu"] else "unknown peak"
    tera = report["flops_per_second"] / 1e12
    print(f"  TFLOP/s a device  {tera:10.3f}   ({mfu}; {report['flops_per_sample'] / 1e9:.1f} GFLOP per sample)")
    print(f"  waiting for data  {report['data_wait']:10.1%}")
    print(f"  peak memory       {report['peak_memory_gib']:10.2f} GiB")
    share = size["read"] / size["reference"]
    print(f"  bytes per sample  {size['read']:10,d}   ({share:.2f} of the reference's float32 layout)")
    if "compare" in report:
        times = report["compare"]["seconds_per_step"]
        print(
            f"  by turns with a plain loop: {times['real']['median']:.3f} s against {times['plain']['median']:.3f} s "
            f"per step, ratio {report['compare']['ratio']:.2f}, losses alike"
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny_16k", choices=list(VARIANTS))
    parser.add_argument("--device", help="default: CUDA if there is one")
    parser.add_argument("--batch_size", type=int, default=16, help="of all ranks together (16)")
    parser.add_argument("--steps", type=int, default=10, help="that are counted (10)")
    parser.add_argument("--num_workers", type=int, default=4, help="processes per rank that read data (4)")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"), help="auto: bf16 on CUDA")
    parser.add_argument("--strategy", default="ddp", choices=STRATEGIES)
    parser.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    parser.add_argument("--compare", action="store_true", help="against a plain loop, in turns")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    if min(args.steps, args.batch_size) < 1:
        parser.error("--steps and --batch_size must be at least 1")
    try:
        with ranks(args.device, TIMEOUT, args.strategy) as here:
            report = bench(args, here)
    except (RankError, *expected_errors()) as error:
        log(error_line(error))
        return 2
    if here.is_main:
        print_report(report)
        if args.json:
            args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
