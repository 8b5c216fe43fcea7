"""Train `tiny_16k` from scratch on the Foley Stage: one command for all of it, on a laptop or a GPU.

    python scripts/train_tiny.py --budget cpu                    # some nights on two cores
    python scripts/train_tiny.py --budget cpu --time-limit 240   # four hours of it; the same command goes on
    python scripts/train_tiny.py --budget gpu                    # one GPU
    python scripts/train_tiny.py --budget cpu --stages evaluate,pack
    torchrun --standalone --nproc_per_node=2 scripts/train_tiny.py --budget cpu --stages sync,features,pieces,flow
    python scripts/train_tiny.py --budget cpu --go-on mmaudio/bundled    # another round for its flow network

Stages, in their order: data (clips rendered to memory-mapped files), vae, vocoder (a small BigVGAN, compared with
Griffin-Lim), clip and sync (which also learn what the clips' events are), features (by the code of
scripts/extract_features.py), pieces and flow (the flow network, first on pieces of clips, then on whole ones), ema (the
averaging length with the lowest validation loss), guided and few (the distillation of docs/few_steps.md; what the
network has beyond its teacher becomes a small file), evaluate, pack (into mmaudio/bundled, with a model card).

Every stage goes on where it was, and is passed over when it is done, so killing and starting again is always safe.
Networks are trained by `train.py`'s own loop and tasks: WORK/runs/STAGE is a run folder as any other, with its
configuration, TensorBoard log and checkpoints. Budgets are steps, not minutes: the same command makes the same weights,
to the rounding of the machine. On a CPU, processes that torchrun starts, of one thread each (OMP_NUM_THREADS=1), do
more than as many threads of one process; stages that one process does alone are refused then.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmaudio.console import error_line, expected_errors, log
from mmaudio.data.clip_cache import CacheSpec, CacheWriter, ClipCache
from mmaudio.data.manifest import ManifestError
from mmaudio.data.parts import ExtractionError, write_text
from mmaudio.evaluation.model_card import FEW_RUNS, model_card, read_record
from mmaudio.model.difference import save_difference
from mmaudio.stage import SPLITS, STAGE_VERSION, make_scene, render_clip, split_seeds
from mmaudio.variants import VARIANTS
from mmaudio.weights import BUNDLED_DIR, WeightError, fingerprint, read_metadata, read_state, save_safetensors

TINY = VARIANTS["tiny_16k"]
SIZE = TINY.sync.frame_size
assert TINY.clip.frame_size == SIZE, "square frames are stored once for both encoders"
RENDER_SIZE = 112  # pixels; stored at the encoders' size, by the resizing that inference uses
SEED = 0
SIGMA_RELS = (0.03, 0.05, 0.075, 0.1, 0.15, 0.2)  # averaging lengths that `ema` tries
MOST_BYTES = 40_000_000  # of the bundled files
FEW_RANK = 32  # of the changes that make the network one for few steps: what there is room for
STOPPED = 130


@dataclass(frozen=True)
class Plan:
    batch: int
    steps: int
    lr: float


@dataclass(frozen=True)
class Budget:
    clips: dict[str, int]  # of the splits train, val and train_audio (sound and captions alone); and `struck`
    plans: dict[str, Plan]
    evaluated: int  # clips of each test split


BUDGETS = {
    "cpu": Budget(
        clips={"train": 2500, "val": 128, "train_audio": 1200, "struck": 3000},
        plans={
            "vae": Plan(16, 4000, 3e-3),
            "heard": Plan(16, 4500, 2e-3),
            "vocoder": Plan(8, 200, 1e-3),
            "clip": Plan(128, 3000, 1e-3),
            "sync": Plan(32, 20000, 1.5e-3),
            "pieces": Plan(32, 12000, 1.5e-3),
            "flow": Plan(16, 1000, 7e-4),
            "guided": Plan(32, 500, 3e-4),
            "few": Plan(16, 400, 3e-4),
        },
        evaluated=200,
    ),
    "gpu": Budget(
        clips={"train": 6000, "val": 256, "train_audio": 4000, "struck": 10000},
        plans={
            "vae": Plan(64, 3000, 3e-3),
            "heard": Plan(64, 2000, 2e-3),
            "vocoder": Plan(16, 1000, 5e-4),
            "clip": Plan(256, 3000, 1e-3),
            "sync": Plan(128, 3000, 1e-3),
            "pieces": Plan(256, 8000, 2e-3),
            "flow": Plan(128, 2500, 1e-3),
            "guided": Plan(128, 1500, 3e-4),
            "few": Plan(64, 4000, 3e-4),
        },
        evaluated=200,
    ),
}

# Impacts and their like come in ten materials each, and sound for tenths of a second: a small part of what a network
# learns from. So there are more clips of nothing else, which are cheap without a picture.
STRUCK = {"bounce", "strike", "collision", "roll", "scrape"}

VAE_SETTINGS = {"seconds": 2.048, "adversarial_weight": 0.0}
HEARD = ("train_audio", "struck")  # sound and captions alone
TRAINS = {"pieces": "network", "flow": "network", "heard": "vae"}  # the part that a run trains, where names differ
FLOW_SETTINGS = {"drop": 0.2}
SETTINGS = {  # of each network's run, beyond the plan: differences from configs/task
    "vae": {"task": VAE_SETTINGS, "precision": "bf16"},
    # With a hundredth of this weight a latent number held 3 nats, not 0.5: most was noise that nothing predicts.
    "heard": {"task": VAE_SETTINGS | {"kl_weight": 0.1, "quiet_weight": 0.1}, "precision": "bf16"},
    "vocoder": {"task": {"small": True, "frames": 32, "critic_width": 0.1}},
    "clip": {"task": {"jitter": True, "events": True}, "precision": "bf16"},
    "sync": {"task": {"stage": "sound", "segments": 1, "events": True}, "precision": "bf16"},
    "pieces": {"task": FLOW_SETTINGS | {"seconds": 2.56}, "precision": "bf16", "optimizer": {"schedule": "cosine"}},
    "flow": {"task": FLOW_SETTINGS, "precision": "bf16", "optimizer": {"schedule": "cosine"}},
    "guided": {"task": {"stage": "guidance", "seconds": 2.56}, "precision": "bf16"},
    "few": {"task": {"steps": [1, 2, 4], "teacher_steps": 8, "seconds": 2.56}, "precision": "bf16"},
}


class Stopped(BaseException):
    """By SIGTERM: the time limit, or somebody else."""


@dataclass(frozen=True)
class Job:
    name: str  # of the budget
    budget: Budget
    work: Path
    out: Path
    workers: int
    rank: int = 0  # among torchrun's processes
    start: Path | None = None  # a flow network to go on from

    @property
    def weights(self) -> Path:
        """The half-precision files that will be bundled: features and evaluation are made with these very ones."""
        return self.work / "weights"

    def cache(self, split: str) -> Path:
        return self.work / "data" / split

    def store(self, split: str) -> Path:
        return self.work / "features" / split

    def run(self, name: str) -> Path:
        return self.work / "runs" / name

    def result(self, name: str) -> Path:
        """What a run writes at its end."""
        names = {part: file.name for part, file in TINY.files.present.items()} | {
            "vocoder": f"{TINY.name}_vocoder.safetensors",
            "guided": f"{TINY.name}_guided.safetensors",
            "few": f"{TINY.name}_few_step.safetensors",
        }
        return self.run(name) / "weights" / names[TRAINS.get(name, name)]


# ---- data


def data(job: Job) -> None:
    """Rendered clips in memory-mapped files."""
    spec = TINY.spec
    for split, count in job.budget.clips.items():
        seen = split not in HEARD
        cache_spec = CacheSpec(
            frames=spec.sync_frames if seen else 0, size=SIZE if seen else 0, samples=spec.num_samples,
            sample_rate=spec.sample_rate, source=f"Foley Stage {STAGE_VERSION}, {split}",
        )  # fmt: skip
        writer = CacheWriter(job.cache(split), cache_spec)
        todo = seeds(split, job.budget)[writer.count :] if writer.count < count else []
        render = render_seen if seen else render_heard
        with workers(job.workers if todo else 1) as apply, tqdm(total=count, initial=writer.count, desc=split) as bar:
            for clip in apply(render, todo):
                writer.append(*clip)
                bar.update()


def seeds(split: str, budget: Budget) -> Sequence[int]:
    """Of the clips of a split; those of `struck` are later ones of train_audio, where such things alone sound."""
    count = budget.clips[split]
    if split != "struck":
        return split_seeds(split, count)
    first, last = SPLITS["train_audio"]
    later = range(first + budget.clips["train_audio"], last)
    sounding = ((seed, make_scene(seed).kinds) for seed in later)
    return list(itertools.islice((seed for seed, kinds in sounding if kinds and STRUCK.issuperset(kinds)), count))


@contextlib.contextmanager
def workers(count: int) -> Iterator[Callable]:
    """`map` in order, by so many processes of one thread each."""
    if count <= 1:
        yield map
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        pool = get_context("spawn").Pool(count, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    finally:
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
    with pool:
        yield pool.imap


def render_seen(seed: int) -> tuple[np.ndarray, np.ndarray, dict]:
    return render(seed, video=True)


def render_heard(seed: int) -> tuple[np.ndarray, np.ndarray, dict]:
    return render(seed, video=False)


def render(seed: int, video: bool) -> tuple[np.ndarray, np.ndarray, dict]:
    spec = TINY.spec
    clip = render_clip(
        seed, duration=spec.duration, fps=spec.sync_fps, size=RENDER_SIZE, sample_rate=spec.sample_rate, video=video
    )
    line = {
        "id": str(seed),
        "captions": list(dict.fromkeys(dataclasses.asdict(clip.captions).values())),
        "events": [dataclasses.asdict(event) for event in clip.events],
    }
    return shrink(clip.video) if video else clip.video, clip.audio, line


def shrink(video: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 to (T, SIZE, SIZE, 3)."""
    from mmaudio.features.frames import sync_frame

    resize = sync_frame(SIZE)
    frames = [resize(frame) for frame in torch.from_numpy(video).permute(0, 3, 1, 2)]
    return torch.stack(frames).permute(0, 2, 3, 1).numpy()


# ---- networks


def train_network(
    job: Job, name: str, train: list[dict], validation: list[dict], start: tuple[str, Path] | None = None
) -> Path:
    """`train.py task=NAME` with the budget's plan; the finished weights. Or another task, that goes on from a file."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from mmaudio.generate_command import config_dir
    from mmaudio.training.command import run
    from mmaudio.training.config import TrainConfig

    plan, result = job.budget.plans[name], job.result(name)
    task, weights = start or (name, None)
    if is_finished(result, plan):
        log(f"{name}: is done ({result})")
        return result
    if result.exists():
        raise WeightError(f"{result}: is not of {plan.steps} steps; remove {job.run(name)} to train it anew")
    ConfigStore.instance().store("train_schema", TrainConfig)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [f"task={task}"])
    config = OmegaConf.merge(config, {
        "exp_id": name, "output": str(job.work / "runs"), "variant": TINY.name, "weights_dir": str(job.weights),
        "weights": None if weights is None else str(weights),
        "data": {"train": train, "validation": validation}, "seed": SEED,
        "steps": plan.steps, "batch_size": plan.batch,
        "optimizer": {"lr": plan.lr, "warmup": plan.steps // 50},
        "ema": {"snapshot_every": max(1, plan.steps // 16) if name == "flow" else 0},
        "log_every": max(1, plan.steps // 100), "validate_every": max(1, plan.steps // 10), "preview_every": 0,
        "checkpoint_every": max(1, plan.steps // 40), "keep_checkpoints": 1,
        "num_workers": min(8, job.workers) if torch.cuda.is_available() else 0,  # on a CPU they take from the training
    }, SETTINGS[name])  # fmt: skip
    code = run(OmegaConf.to_object(config))
    if code:
        raise SystemExit(code)
    if not is_finished(result, plan):
        raise Stopped
    return result


def is_finished(path: Path, plan: Plan) -> bool:
    return path.exists() and read_metadata(path).get("step") == str(plan.steps)


def publish(job: Job, path: Path, state: dict[str, Tensor] | None = None, **about: str) -> None:
    """A run's result in half precision, where the later stages and `pack` find it."""
    state = read_state(path) if state is None else state
    half = {key: x.half() if x.is_floating_point() else x for key, x in state.items()}
    save_safetensors(job.weights / path.name, half, read_metadata(path) | about)


def caches(job: Job, *splits: str) -> list[dict]:
    return [{"manifest": str(job.cache(split))} for split in splits]


def vae(job: Job) -> None:
    """In two runs: first all of the mel counts, then mostly what is heard, or room noise takes most of the capacity."""
    data = caches(job, "train", "train_audio"), caches(job, "val")
    first = train_network(job, "vae", *data)
    publish(job, train_network(job, "heard", *data, start=("vae", first)))


def vocoder(job: Job) -> None:
    """Not bundled unless it wins: `vocoders.json` says."""
    path = train_network(job, "vocoder", caches(job, "train", "train_audio"), caches(job, "val"))
    if read_record(job.work / "vocoders.json").get("made_of") != fingerprint(path):
        compare_vocoders(job, path)


def clip(job: Job) -> None:
    publish(job, train_network(job, "clip", caches(job, "train"), caches(job, "val")))


def sync(job: Job) -> None:
    publish(job, train_network(job, "sync", caches(job, "train"), caches(job, "val")))


@torch.inference_mode()
def compare_vocoders(job: Job, path: Path) -> None:
    """Griffin-Lim against the small BigVGAN on held-out mel: log-mel and spectral distance, and time."""
    from mmaudio.codec.mel import MelSpectrogram
    from mmaudio.codec.vocoder import GriffinLim, GriffinLimConfig, load_bigvgan, small_bigvgan

    clips = ClipCache(job.cache("val")).clips()[:24]
    sound = torch.cat([row.sound()[0] for row in clips])  # (N, samples)
    front_end = MelSpectrogram(TINY.mel)
    mel = front_end(sound)
    vocoders = {f"Griffin-Lim {n}": GriffinLim(GriffinLimConfig(TINY.mel, n)) for n in (32, 64)}
    vocoders["BigVGAN"] = load_bigvgan(small_bigvgan(TINY.mel), read_state(path), source=str(path))
    figures = {}
    for name, vocoder in vocoders.items():
        began = time.perf_counter()
        waves = torch.cat([vocoder(one)[:, 0] for one in mel.split(1)])
        seconds = (time.perf_counter() - began) / len(clips)
        length = min(waves.shape[1], sound.shape[1])
        figures[name] = {
            "log_mel_l1": (front_end(waves)[..., : mel.shape[2]] - mel).abs().mean().item(),
            "spectral": spectral_distance(waves[:, :length], sound[:, :length]).item(),
            "seconds_per_clip": seconds,
        }
        log(f"{name:15s} " + "  ".join(f"{key} {value:.3f}" for key, value in figures[name].items()))
    judged, rival = figures["BigVGAN"], figures["Griffin-Lim 64"]
    best = "BigVGAN" if all(judged[key] <= rival[key] for key in rival) else "Griffin-Lim"
    write_json(job.work / "vocoders.json", {"best": best, "made_of": fingerprint(path), "figures": figures})
    if best == "BigVGAN":
        log(f"BigVGAN wins on every count: it deserves a place in mmaudio/variants.py and its file in {job.out}")


def spectral_distance(y: Tensor, x: Tensor) -> Tensor:
    """Multi-resolution magnitude distance of two waveforms (B, N): linear (relative) and logarithmic."""
    total = 0.0
    for n_fft in (128, 512, 2048):
        window = torch.hann_window(n_fft)
        a, b = (torch.stft(w, n_fft, n_fft // 4, window=window, return_complex=True).abs() + 1e-4 for w in (y, x))
        total = total + (a - b).norm() / b.norm() + (a.log() - b.log()).abs().mean()
    return total / 3


# ---- features and flow


def features(job: Job) -> None:
    """Feature stores, by the code that inference uses; every caption of a clip is a row."""
    from mmaudio.data.extraction import ExtractConfig, extract

    for split in ("val", *HEARD, "train"):
        config = ExtractConfig(
            manifest=str(job.cache(split)), output=str(job.store(split)), variant=TINY.name,
            peak_normalise=False, weights_dir=str(job.weights), num_workers=0,
        )  # fmt: skip
        if extract(config):
            raise SystemExit(f"{job.store(split)}.failed.tsv: rendered clips must not fail")
        while not job.store(split).exists():  # the first of torchrun's processes packs it
            time.sleep(1)


def stores(job: Job, *splits: str) -> list[dict]:
    return [{"store": str(job.store(split))} for split in splits]


def flow_stores(job: Job) -> tuple[list[dict], list[dict]]:
    return stores(job, "train", *HEARD), stores(job, "val")


def pieces(job: Job) -> None:
    """Where most of the steps are: a piece costs less than half of a clip."""
    train_network(job, "pieces", *flow_stores(job), start=("flow", job.start))


def flow(job: Job) -> None:
    if not job.result("pieces").exists():
        raise WeightError(f"{job.result('pieces')}: is not there; add the stage pieces")
    train_network(job, "flow", *flow_stores(job), start=("flow", job.result("pieces")))


def ema(job: Job) -> None:
    """The averaging length with the lowest validation loss, into the file that is bundled."""
    from omegaconf import OmegaConf

    from mmaudio.training.config import TrainConfig
    from mmaudio.training.distributed import Ranks
    from mmaudio.training.ema import open_snapshots, synthesize
    from mmaudio.training.loop import TrainingState
    from mmaudio.training.tasks.flow import build

    result, run = job.result("flow"), job.run("flow")
    if not is_finished(result, job.budget.plans["flow"]):
        raise WeightError(f"{result}: flow is not trained; add the stage flow")
    made_of = fingerprint(result)
    target = job.weights / result.name
    if target.exists() and read_metadata(target).get("made_of") == made_of:
        log(f"ema: is done ({target})")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(run / "config.yaml"))
    )
    state = TrainingState(build(config, device), config, Ranks(0, 1, device))
    snapshots, losses, averages = open_snapshots(run / "ema"), {}, {}
    for sigma_rel in SIGMA_RELS:
        averages[sigma_rel] = synthesize(snapshots, sigma_rel)
        state.network.module.load_state_dict(averages[sigma_rel], strict=False)  # all but whole numbers
        losses[sigma_rel] = state.validate()["loss"]
        log(f"sigma_rel {sigma_rel:g}: validation loss {losses[sigma_rel]:.5f}")
    best = min(losses, key=losses.get)
    write_json(job.work / "ema.json", {"losses": losses, "chosen": best})
    before = [read_metadata(job.start).get("rounds", "others")] if job.start else []
    plans = [(job.budget.plans[name], what) for name, what in (("pieces", " pieces"), ("flow", ""))]
    rounds = ", then ".join(before + [f"{plan.steps} x {plan.batch}{what}" for plan, what in plans])
    publish(job, result, state.task.export(averages[best]), sigma_rel=str(best), made_of=made_of, rounds=rounds)


def guided(job: Job) -> None:
    train_network(job, "guided", *flow_stores(job), start=("distill", job.weights / TINY.files.network.name))


def few(job: Job) -> None:
    """Trained whole, and bundled as the strongest directions of its changes: all of it would not fit."""
    result = train_network(job, "few", *flow_stores(job), start=("distill", job.result("guided")))
    if job.rank:
        return
    teacher, target = job.weights / TINY.files.network.name, job.weights / TINY.few_step.name
    made_of = {"made_of": fingerprint(result), "base": fingerprint(teacher), "rank": str(FEW_RANK)}
    if target.exists() and made_of.items() <= read_metadata(target).items():
        log(f"few: is done ({target})")
        return
    lost = save_difference(target, result, teacher, FEW_RANK, made_of=made_of["made_of"])
    size = target.stat().st_size
    write_json(job.work / "few_step.json", {"rank": FEW_RANK, "lost": lost, "bytes": size})
    log(f"rank {FEW_RANK}: {size / 1e6:.1f} MB, without {lost:.1%} of the change")


# ---- evaluation and packing


def evaluate(job: Job) -> None:
    network, with_few = job.weights / TINY.files.network.name, (job.weights / TINY.few_step.name).exists()
    for split in ("test", "test_hard"):
        evaluate_rows(job, split, split, "--variant", TINY.name, "--store", job.store("train"))
        for name, steps, plain in FEW_RUNS.values() if with_few else ():
            variant = network if plain else TINY.name  # by its path a network has nothing beside it
            words = ("--variant", variant, "--num_steps", steps, "--rows", "variant")
            evaluate_rows(job, split, f"{split}_{name}", *words)


def evaluate_rows(job: Job, split: str, name: str, *words) -> None:
    """By scripts/evaluate_stage.py into WORK/NAME.json, unless that is newer than all weights."""
    path = job.work / f"{name}.json"
    if path.exists() and path.stat().st_mtime > max(x.stat().st_mtime for x in job.weights.glob("*.safetensors")):
        log(f"evaluate: is done ({path})")
        return
    words = [
        Path(__file__).with_name("evaluate_stage.py"), *words, "--weights_dir", job.weights, "--split", split,
        "--count", job.budget.evaluated, "--seed", 0, "--work", job.work / "evaluation", "--json", path,
    ]  # fmt: skip
    done = subprocess.run([sys.executable, *map(str, words)])
    if done.returncode:
        raise SystemExit(done.returncode)


def pack(job: Job) -> None:
    """The half-precision files into the package, and a card that says where they come from."""
    names = [file.name for file in (*TINY.files.present.values(), TINY.few_step)]
    missing = [name for name in names if not (job.weights / name).exists()]
    if missing:
        raise WeightError(f"{job.weights / missing[0]}: is not there; run the stages before")
    others = [path for path in job.out.glob("*.safetensors") if path.name not in names]  # the judge is bundled, too
    size = sum(path.stat().st_size for path in (*(job.weights / name for name in names), *others))
    if size > MOST_BYTES:
        raise WeightError(f"{job.out}: would hold {size / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:g} MB are bundled")
    job.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(job.weights / name, job.out / name)
    card = model_card(job.work, names, job.name, SEED, **dataclasses.asdict(job.budget))
    (job.out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    log(f"pack: {size / 1e6:.1f} MB in {job.out}")


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


# ---- the command

STAGES: dict[str, Callable[[Job], None]] = {
    "data": data, "vae": vae, "vocoder": vocoder, "clip": clip, "sync": sync, "features": features,
    "pieces": pieces, "flow": flow, "ema": ema, "guided": guided, "few": few, "evaluate": evaluate, "pack": pack,
}  # fmt: skip
TRAINED_ONCE = ("vae", "vocoder", "clip", "sync")  # what --go-on keeps as it is
SHARED = ("vae", "clip", "sync", "features", "pieces", "flow", "guided", "few")  # what torchrun's processes can share


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=list(BUDGETS), required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="data, runs, features (runs/tiny)")
    parser.add_argument(
        "--stages", type=stage_names, default=list(STAGES), help="some of them, with commas; default: all"
    )
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop at a checkpoint then")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="rendering processes (the cores)")
    parser.add_argument("--out", type=Path, default=BUNDLED_DIR, help="where pack writes (the package)")
    parser.add_argument(
        "--go-on", type=Path, metavar="DIR", help="keep the codec and encoders of DIR, and train its flow network on"
    )
    args = parser.parse_args(argv)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and (alone := [name for name in args.stages if name not in SHARED]):
        parser.error(f"stage {alone[0]} is done by one process: torchrun needs --stages {','.join(SHARED)}, or some")
    start = args.go_on.absolute() / TINY.files.network.name if args.go_on else None
    job = Job(args.budget, BUDGETS[args.budget], args.work.absolute(), args.out, args.workers, rank, start)
    job.work.mkdir(parents=True, exist_ok=True)
    try:
        if start:
            args.stages = [name for name in args.stages if name not in TRAINED_ONCE]
            keep_parts(job)
        with stopping(args.time_limit) as out_of_time:
            for name in (name for name in STAGES if name in args.stages):
                if out_of_time():
                    raise Stopped
                log(f"== {name}")
                with timed(job, name):
                    STAGES[name](job)
    except (Stopped, KeyboardInterrupt):
        log("stopped; the same command goes on from here")
        return STOPPED
    except (*expected_errors(), ManifestError, ExtractionError) as error:
        log(error_line(error))
        return 2
    return 0


def keep_parts(job: Job) -> None:
    """Codec and encoders of an earlier round where the stages look for them; what lies there already stays.

    Raises:
        WeightError: a file is missing.
    """
    names = [file.name for file in TINY.files.present.values()]
    for name in names:
        if not (source := job.start.with_name(name)).exists():
            raise WeightError(f"{source}: is not there; --go-on needs a folder with all files of {TINY.name}")
    job.weights.mkdir(exist_ok=True)
    for name in names:
        if name != job.start.name and not (target := job.weights / name).exists():
            shutil.copyfile(job.start.with_name(name), target)


def stage_names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in STAGES:
            raise argparse.ArgumentTypeError(f"unknown stage {name!r}: expected some of {','.join(STAGES)}")
    return names


@contextlib.contextmanager
def stopping(minutes: float | None) -> Iterator[Callable[[], bool]]:
    """SIGTERM, by the clock or by somebody, ends the command; in a training, the loop takes it and saves first."""

    def stop(signum, frame):
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    timer = threading.Timer(60 * (minutes or 0), os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    if minutes:
        timer.start()
    try:
        yield lambda: time.monotonic() > end
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def timed(job: Job, name: str) -> Iterator[None]:
    """Adds to the seconds that a stage has taken."""
    began = time.monotonic()
    try:
        yield
    finally:
        if job.rank == 0:
            seconds = read_record(job.work / "seconds.json")
            seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began
            write_json(job.work / "seconds.json", seconds)


if __name__ == "__main__":
    sys.exit(main())
