"""Train the bundled `tiny_16k` from scratch on the Foley Stage, stage by stage, on a laptop or a GPU.

    W="--work runs/tiny"
    python scripts/train_tiny.py render --clips 1864 $W   # picture and sound, memory-mapped (2.4 MB a clip)
    python scripts/train_tiny.py sync --minutes 20 $W     # small Synchformer: predicts motion and sound
    python scripts/train_tiny.py clip --minutes 7 $W      # small CLIP: contrastive
    python scripts/train_tiny.py vae --minutes 7 $W       # mel VAE
    python scripts/train_tiny.py vocoder --minutes 8 $W   # small BigVGAN, to compare with Griffin-Lim
    python scripts/train_tiny.py compare_vocoders $W      # mel distance and onsets of both
    python scripts/train_tiny.py extract $W               # features and latents of every clip
    python scripts/train_tiny.py flow --minutes 27 --batch 16 --lr 1.5e-3 $W
    python scripts/train_tiny.py pack $W                  # averaged weights into mmaudio/bundled

The bundled weights were made with these budgets on two busy CPU cores. Not to the letter: sync, CLIP and VAE ran while
rendering went on and saw about the first 1,400 clips, and flow began with a budget of 34 minutes that was shortened to
27 (1,039 steps). `--minutes` is the budget of a part in wall-clock time, so another machine makes other weights.

Every command can be stopped and run again: it goes on where it was. Seeds are functions of (seed, step), so a resumed
run draws what an uninterrupted one would. The learning rate follows the share of the budget that is used up.
"""

import argparse
import contextlib
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mmaudio import flow
from mmaudio.codec.mel import MelSpectrogram
from mmaudio.codec.vae import VAE
from mmaudio.codec.vocoder import build_bigvgan, small_bigvgan
from mmaudio.features.clip import ClipEncoder, build_clip, tokenize
from mmaudio.features.frames import clip_normalize, sync_frame, sync_normalize
from mmaudio.features.synchformer import SynchformerVisual
from mmaudio.model.network import MMAudio
from mmaudio.stage import render_clip, split_seeds
from mmaudio.variants import VARIANTS
from mmaudio.weights import BUNDLED_DIR, save_safetensors

RENDER_SIZE = 112  # pixels; stored at the encoders' size, by the resizing that inference uses
FPS = 25
SECONDS = 8
FRAMES = SECONDS * FPS
TINY = VARIANTS["tiny_16k"]
SIZE = TINY.sync.frame_size
assert TINY.clip.frame_size == SIZE, "square frames are stored once for both encoders"
SMALL_BIGVGAN = small_bigvgan(TINY.mel)


# ---------------------------------------------------------------- data


class Clips:
    """Rendered clips in memory-mapped files; grows while `render` runs."""

    def __init__(self, folder: Path, split: str, count: int | None = None):
        self.folder = folder / split
        if count is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "count.json").write_text(json.dumps(count))
        self.capacity = json.loads((self.folder / "count.json").read_text())
        mode = "r+" if (self.folder / "video.u8").exists() else "w+"
        self.video = np.memmap(self.folder / "video.u8", np.uint8, mode, shape=(self.capacity, FRAMES, SIZE, SIZE, 3))
        samples = SECONDS * TINY.spec.sample_rate
        self.audio = np.memmap(self.folder / "audio.f32", np.float32, mode, shape=(self.capacity, samples))
        self.meta_path = self.folder / "clips.jsonl"
        lines = self.meta_path.read_text().splitlines() if self.meta_path.exists() else []
        self.meta = [json.loads(line) for line in lines]

    def __len__(self) -> int:
        return len(self.meta)


def render_one(seed: int):
    torch.set_num_threads(1)
    clip = render_clip(seed, size=RENDER_SIZE, fps=FPS, sample_rate=TINY.spec.sample_rate)
    events = [[e.time, e.kind, e.material, e.loudness] for e in clip.events]
    return shrink(clip.video), clip.audio, {"seed": seed, "caption": clip.caption, "events": events}


def shrink(video: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 to (T, SIZE, SIZE, 3)."""
    return sync_frame(SIZE)(torch.from_numpy(video).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


def render_pool(workers: int):
    from multiprocessing import get_context

    return get_context("spawn").Pool(workers) if workers > 1 else None


def render(args):
    for split, count in (("val", max(2, args.clips // 17)), ("train", args.clips)):
        clips = Clips(args.work, split, count)
        done = len(clips)
        todo = split_seeds(split, count)[done:]
        pool = render_pool(args.workers)
        results = pool.imap(render_one, todo) if pool else map(render_one, todo)
        for i, (video, audio, meta) in enumerate(tqdm(results, total=len(todo), desc=f"render {split}"), start=done):
            clips.video[i], clips.audio[i] = video, audio
            with clips.meta_path.open("a") as f:  # last: a row counts once its line is there
                f.write(json.dumps(meta) + "\n")


# ---------------------------------------------------------------- one loop for every part


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast():
    return torch.autocast(device().type, torch.bfloat16)


@contextlib.contextmanager
def fast_attention():
    """On a CPU the fused kernel's backward pass is several times slower than plain matrix products at our sizes."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH) if device().type == "cpu" else contextlib.nullcontext():
        yield


def fit(name: str, work: Path, minutes: float, model: nn.Module, step_loss, lr: float, weight_decay: float = 1e-4):
    """Minimise `step_loss(rng) -> dict of scalars, with "loss"` for a budget of minutes; resumes from its checkpoint.

    Warm-up over 2 % of the budget, then a cosine to zero over the elapsed time. Returns the exponential average of the
    weights, which is what is used afterwards. A step whose loss is not finite stops the run with the last checkpoint.
    """
    path = work / f"{name}.pt"
    model.to(device()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)
    ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
    step, elapsed = 0, 0.0
    if path.exists():
        saved = torch.load(path, map_location=device(), weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        ema, step, elapsed = saved["ema"], saved["step"], saved["elapsed"]

    def save():
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema}
        torch.save(state | {"step": step, "elapsed": elapsed}, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    bar = tqdm(total=round(minutes * 60), initial=min(round(elapsed), round(minutes * 60)), desc=name, unit="s")
    last_save, averages = time.time(), {}
    while elapsed < minutes * 60:
        began = time.time()
        progress = elapsed / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, progress / 0.02 + 1e-3) * (0.5 + 0.5 * math.cos(math.pi * progress))
        with fast_attention():
            scalars = step_loss(np.random.default_rng((hash_name(name), step)))
        if not torch.isfinite(scalars["loss"]):
            raise SystemExit(f"{name}: loss is not finite at step {step}; run again to go on from {path}")
        optimizer.zero_grad(set_to_none=True)
        scalars["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for k, v in model.state_dict().items():
                ema[k].lerp_(v, 1 - decay) if v.is_floating_point() else ema[k].copy_(v)
        for k, v in scalars.items():
            averages[k] = averages.get(k, v.item()) * 0.98 + 0.02 * v.item()
        elapsed += time.time() - began
        bar.n = min(round(elapsed), bar.total)
        bar.set_postfix(step=step, **{k: f"{v:.3f}" for k, v in averages.items()})
        if time.time() - last_save > 60:
            save()
            last_save = time.time()
    save()
    model.load_state_dict(ema)
    return model.eval()


def hash_name(name: str) -> int:
    import zlib

    return zlib.crc32(name.encode())


def trained(name: str, work: Path, model: nn.Module) -> nn.Module:
    """The averaged weights of a finished (or running) part."""
    saved = torch.load(work / f"{name}.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(saved["ema"])
    return model.to(device()).eval()


def generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator(device()).manual_seed(int(rng.integers(2**62)))


def jitter(frames: np.ndarray, rng: np.random.Generator) -> Tensor:
    """uint8 frames (B, ..., H, W, 3) to uint8 (B, ..., 3, H, W): flip, shift, brightness, contrast, tint per sample."""
    out = torch.empty((*frames.shape[:-3], 3, *frames.shape[-3:-1]), dtype=torch.uint8)
    levels = np.arange(256, dtype=np.float32)
    for row, x in zip(out, frames, strict=True):
        if rng.random() < 0.5:
            x = x[..., ::-1, :]
        x = np.roll(x, rng.integers(-4, 5, 2), axis=(-3, -2))
        gain, offset, tint = rng.uniform(0.7, 1.3), rng.uniform(-25, 25), rng.uniform(0.85, 1.15, 3)
        for c in range(3):  # one table look-up per channel instead of float arithmetic on every pixel
            table = (((levels - 128) * gain + 128 + offset) * tint[c]).clip(0, 255).astype(np.uint8)
            row.select(-3, c).copy_(torch.from_numpy(table[x[..., c]]))
    return out.to(device())


# ---------------------------------------------------------------- the parts


def train_clip(args):
    """Contrastive: a frame's embedding against its clip's caption; equal captions are all positives."""
    clips = Clips(args.work, "train")
    model = build_clip(TINY.clip)
    model.logit_scale.data.fill_(math.log(10.0))
    captions = [m["caption"] for m in clips.meta]
    tokens = tokenize(captions)
    unique = {c: i for i, c in enumerate(sorted(set(captions)))}
    group = torch.tensor([unique[c] for c in captions])

    def step_loss(rng):
        rows = np.sort(rng.choice(len(clips), min(128, len(clips)), replace=False))
        picks = rng.integers(0, FRAMES, len(rows))
        frames = np.stack([clips.video[r, k] for r, k in zip(rows, picks, strict=True)])
        frames = jitter(frames, rng)
        same = (group[rows][:, None] == group[rows][None]).float().to(device())
        target = same / same.sum(1, keepdim=True)
        with autocast():
            image = F.normalize(model.encode_image(clip_normalize(frames)).float(), dim=-1)
            text = F.normalize(model.encode_text(tokens[rows].to(device())).float(), dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        hit = same.gather(1, logits.argmax(1, keepdim=True)).mean()
        return {"loss": loss, "top1": hit}

    fit("clip", args.work, args.minutes, model, step_loss, lr=1e-3)


class SyncHeads(nn.Module):
    """Synchformer with linear read-outs, twice per token (every 40 ms): contact probability, eight mel bands, motion.

    Contacts are rare and the picture is full of things that do not sound, so the sound alone teaches nothing for
    thousands of steps. What moves where is asked for as well: of every patch, and of the whole frame's feature.
    """

    BANDS = 8

    def __init__(self):
        super().__init__()
        c = TINY.sync
        self.encoder = SynchformerVisual(c)
        self.contact = nn.Linear(c.embed_dim, 2)
        self.bands = nn.Linear(c.embed_dim, 2 * self.BANDS)
        self.frame_motion = nn.Linear(c.embed_dim, 2 * c.grid**2)
        self.patch_motion = nn.Linear(c.embed_dim, 2)
        self.patches = None  # (B, 8 * patches, D) of the last forward
        self.encoder.vfeat_extractor.norm.register_forward_hook(lambda module, args, out: setattr(self, "patches", out))
        self.start_from_motion()

    @torch.no_grad()
    def start_from_motion(self):
        """Filters without a mean, half of them differences of the two frames: or the still background drowns all."""
        weight = self.encoder.vfeat_extractor.patch_embed_3d.proj.weight  # (D, 3, 2, p, p)
        weight -= weight.mean((1, 3, 4), keepdim=True)
        half = len(weight) // 2
        weight[:half, :, 1] = -weight[:half, :, 0]
        weight[:half] *= 6

    def forward(self, segments: Tensor) -> dict[str, Tensor]:
        """Segments (B, 16, 3, H, W) in [-1, 1]."""
        features = self.encoder(segments[:, None])[:, 0]  # (B, 8, D)
        return {
            "contact": self.contact(features).flatten(1),  # (B, 16)
            "bands": self.bands(features).unflatten(-1, (2, -1)).flatten(1, 2),  # (B, 16, 8)
            "frame_motion": self.frame_motion(features).unflatten(-1, (2, -1)).flatten(1, 2),  # (B, 16, patches)
            "patch_motion": self.patch_motion(self.patches)
            .unflatten(1, (8, -1))
            .permute(0, 1, 3, 2)
            .flatten(1, 2),  # (B, 16, patches)
        }


def motion_energy(segments: Tensor) -> Tensor:
    """Segments (B, 16, 3, H, W) in [-1, 1] to log mean absolute change per patch and frame, (B, 16, patches).

    Relative to the patch's median over the segment, so that film grain and texture do not count.
    """
    grey = segments.mean(2)
    change = (grey[:, 1:] - grey[:, :-1]).abs()
    change = torch.cat([change[:, :1], change], dim=1)
    energy = (F.avg_pool2d(change, TINY.sync.patch_size).flatten(2) + 0.006).log()
    return energy - energy.median(dim=1, keepdim=True)[0]


def sync_targets(clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Per 40 ms frame: soft contact label (N, 200) from the events, and standardised mel bands (N, 200, 8)."""
    from mmaudio.codec.mel import MelConfig

    mel = MelSpectrogram(MelConfig(TINY.spec.sample_rate, 1024, TINY.spec.sample_rate // FPS, SyncHeads.BANDS, True))
    bands = [mel(torch.from_numpy(clips.audio[i : i + 64].copy())) for i in range(0, len(clips), 64)]
    bands = torch.cat(bands)[: len(clips)].transpose(1, 2)
    bands = (bands - bands.mean((0, 1))) / bands.std((0, 1))
    contact = np.zeros((len(clips), FRAMES), np.float32)
    middles = (np.arange(FRAMES) + 0.5) / FPS
    for i, meta in enumerate(clips.meta):
        for event in meta["events"]:
            contact[i] = np.maximum(contact[i], np.exp(-0.5 * ((middles - event[0]) / 0.025) ** 2))
    return contact, bands.numpy()


def train_sync(args):
    """Predict the sound from sixteen frames: when things touch, and the bands' levels."""
    clips = Clips(args.work, "train")
    contact, bands = sync_targets(clips)
    model = SyncHeads()
    length, step = TINY.sync.segment_frames, TINY.sync.segment_step

    def step_loss(rng):
        rows = np.sort(rng.integers(0, len(clips), args.batch))
        starts = rng.integers(0, (FRAMES - length) // step + 1, len(rows)) * step
        spans = [(r, slice(s, s + length)) for r, s in zip(rows, starts, strict=True)]
        frames = jitter(np.stack([clips.video[r, span] for r, span in spans]), rng)
        is_contact = torch.from_numpy(np.stack([contact[r, span] for r, span in spans])).to(device())
        level = torch.from_numpy(np.stack([bands[r, span] for r, span in spans])).to(device())
        segments = sync_normalize(frames)
        motion = motion_energy(segments)
        with autocast():
            out = {name: x.float() for name, x in model(segments).items()}
        touch = F.binary_cross_entropy_with_logits(out["contact"], is_contact, pos_weight=torch.tensor(4.0))
        level_error = F.mse_loss(out["bands"], level)
        frame_error, patch_error = (F.mse_loss(out[name], motion) for name in ("frame_motion", "patch_motion"))
        total = 2 * touch + level_error + (frame_error + patch_error) / motion.var().clamp(min=1e-3)
        return {"loss": total, "touch": touch, "bands": level_error, "patch": patch_error, "frame": frame_error}

    fit("sync", args.work, args.minutes, model, step_loss, lr=1e-3, weight_decay=0.02)


def mels_of(clips: Clips) -> Tensor:
    mel = MelSpectrogram(TINY.mel)
    parts = [mel(torch.from_numpy(clips.audio[i : i + 32].copy())) for i in range(0, len(clips), 32)]
    return torch.cat(parts)[: len(clips)]


def train_vae(args):
    """Reconstruction of standardised log-mel, with a light pull of the posterior to the unit normal."""
    mel = mels_of(Clips(args.work, "train"))
    model = VAE(TINY.vae)
    model.data_mean.copy_(mel.mean((0, 2)).view(1, -1, 1))
    model.data_std.copy_(mel.std((0, 2)).view(1, -1, 1))

    def step_loss(rng):
        rows, starts = rng.integers(0, len(mel), 16), rng.integers(0, mel.shape[-1] - 128, 16)
        x = torch.stack([mel[r, :, s : s + 128] for r, s in zip(rows, starts, strict=True)]).to(device())
        with autocast():
            posterior = model.encode(x)
            y = model.decode(posterior.sample(generator(rng)))
        error = (y.float() - x) / model.data_std
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return {"loss": error.abs().mean() + error.square().mean() + 0.003 * kl, "l1": error.abs().mean(), "kl": kl}

    fit("vae", args.work, args.minutes, model, step_loss, lr=3e-3, weight_decay=0.0)


def spectral_loss(y: Tensor, x: Tensor) -> Tensor:
    """Multi-resolution magnitude distance of two waveforms (B, N): linear and logarithmic."""
    total = 0.0
    for n_fft in (128, 512, 2048):
        window = torch.hann_window(n_fft, device=x.device)
        a, b = (torch.stft(w, n_fft, n_fft // 4, window=window, return_complex=True).abs() + 1e-4 for w in (y, x))
        total = total + (a - b).norm() / b.norm() + (a.log() - b.log()).abs().mean()
    return total / 3


def train_vocoder(args):
    """A small BigVGAN on spectral distances alone (no discriminator)."""
    clips = Clips(args.work, "train")
    mel = MelSpectrogram(TINY.mel).to(device())
    model = build_bigvgan(SMALL_BIGVGAN)
    samples = 32 * TINY.mel.hop_length

    def step_loss(rng):
        rows, starts = rng.integers(0, len(clips), 8), rng.integers(0, clips.audio.shape[1] - samples, 8)
        x = np.stack([clips.audio[r, s : s + samples] for r, s in zip(rows, starts, strict=True)])
        x = torch.from_numpy(x).to(device())
        y = model(mel(x)).squeeze(1)
        distance = spectral_loss(y, x)
        mel_distance = (mel(y) - mel(x)).abs().mean()
        return {"loss": distance + 2 * mel_distance, "spectral": distance, "mel": mel_distance}

    fit("vocoder", args.work, args.minutes, model, step_loss, lr=2e-3, weight_decay=0.0)


# ---------------------------------------------------------------- features, flow, packing


@torch.inference_mode()
def extract(args):
    """Features and latents of every clip, by the code that inference uses."""
    model = trained("clip", args.work, build_clip(TINY.clip))
    clip = ClipEncoder(model.visual, model)
    sync = trained("sync", args.work, SyncHeads()).encoder
    vae = trained("vae", args.work, VAE(TINY.vae)).fold()
    times = np.ceil(np.arange(TINY.spec.clip_len) / TINY.spec.clip_fps * FPS - 1e-9).astype(int)
    for split in ("val", "train"):
        clips = Clips(args.work, split)
        mel = mels_of(clips)
        out = {name: [] for name in ("clip", "sync", "text", "mean", "std")}
        for i in tqdm(range(len(clips)), desc=f"extract {split}"):
            frames = torch.from_numpy(clips.video[i].copy()).permute(0, 3, 1, 2)
            with autocast():
                out["sync"].append(sync.encode(frames[None], chunk=24)[0].half().cpu())
                out["clip"].append(clip.image(frames[times][None], chunk=64)[0].half().cpu())
            out["text"].append(clip.text([clips.meta[i]["caption"]])[0].half().cpu())
            posterior = vae.encode(mel[i : i + 1].to(device()))
            out["mean"].append(posterior.mean[0].T.half().cpu())
            out["std"].append(posterior.std[0].T.half().cpu())
        stacked = {name: torch.stack(rows) for name, rows in out.items()}
        stacked["empty_text"] = clip.text([""])[0].cpu()
        torch.save(stacked, args.work / f"features_{split}.tmp")
        os.replace(args.work / f"features_{split}.tmp", args.work / f"features_{split}.pt")


def train_flow(args):
    """The recipe of the paper's section 4 at a small batch: null conditions with probability 0.1 each."""
    data = torch.load(args.work / "features_train.pt", weights_only=True)
    network, spec = MMAudio(TINY.network), TINY.spec
    means = data["mean"].float().flatten(0, 1)
    network.latent_mean.copy_(means.mean(0).view(1, 1, -1))
    network.latent_std.copy_(means.std(0).view(1, 1, -1))
    network.empty_string_feat.copy_(data["empty_text"])

    def step_loss(rng):
        rows = torch.from_numpy(rng.integers(0, len(data["mean"]), args.batch))
        batch = {name: data[name][rows].float().to(device()) for name in ("clip", "sync", "text", "mean", "std")}
        g, shape = generator(rng), batch["mean"].shape

        def normal():
            return torch.randn(shape, generator=g, device=device())

        def drop(feature, empty):
            missing = torch.rand(len(rows), 1, 1, generator=g, device=device()) < 0.1
            return torch.where(missing, empty, feature)

        x1 = network.normalize(batch["mean"] + batch["std"] * normal())
        t = flow.sample_times(len(rows), g, device=device())
        x0 = normal()
        no_video = torch.rand(len(rows), 1, 1, generator=g, device=device()) < 0.1
        clip = torch.where(no_video, network.empty_clip(len(rows), spec), batch["clip"])
        sync = torch.where(no_video, network.empty_sync(len(rows), spec), batch["sync"])
        text = drop(batch["text"], network.empty_text(len(rows)))
        with autocast():
            v = network(flow.interpolate(x0, x1, t), t, clip, sync, text, spec)
        return {"loss": flow.loss(v, x0, x1).mean()}

    fit("flow", args.work, args.minutes, network, step_loss, lr=args.lr, weight_decay=1e-6)


@torch.inference_mode()
def compare_vocoders(args):
    """Griffin-Lim against the small BigVGAN on held-out mel: log-mel and spectral distance, onsets (50 ms), time."""
    from mmaudio.codec.vocoder import GriffinLim, GriffinLimConfig, fold_weight_norm
    from mmaudio.evaluation.onsets import Matches, detect_onsets, match_onsets

    clips = Clips(args.work, "val")
    count = min(24, len(clips))
    mel, front_end = mels_of(clips)[:count], MelSpectrogram(TINY.mel)
    truth = [np.array([event[0] for event in meta["events"]]) for meta in clips.meta[:count]]
    vocoders = {f"Griffin-Lim {n}": GriffinLim(GriffinLimConfig(TINY.mel, n)) for n in (32, 64)}
    vocoders["BigVGAN"] = fold_weight_norm(trained("vocoder", args.work, build_bigvgan(SMALL_BIGVGAN))).cpu()
    for name, vocoder in vocoders.items():
        began = time.perf_counter()
        waves = torch.cat([vocoder(one)[:, 0] for one in mel.split(1)])
        seconds = (time.perf_counter() - began) / count
        heard = [detect_onsets(wave.numpy(), TINY.spec.sample_rate) for wave in waves]
        f1 = sum((match_onsets(h, t, 0.05) for h, t in zip(heard, truth, strict=True)), Matches()).f1
        distance = (front_end(waves) - mel).abs().mean().item()
        spectral = spectral_loss(waves, torch.from_numpy(clips.audio[:count].copy())).item()
        print(
            f"{name:15s} log-mel L1 {distance:.3f}  spectral {spectral:.3f}  F1 at 50 ms {f1:.3f}  {seconds:.2f} s/clip"
        )


def pack(args):
    """Averaged weights of all parts, half precision, into the package."""
    args.out.mkdir(parents=True, exist_ok=True)
    parts = {
        "network": trained("flow", args.work, MMAudio(TINY.network)).state_dict(),
        "vae": trained("vae", args.work, VAE(TINY.vae)).state_dict(),
        "clip": trained("clip", args.work, build_clip(TINY.clip)).state_dict(),
        "sync": trained("sync", args.work, SyncHeads()).encoder.state_dict(),
    }
    for part, state in parts.items():
        path = args.out / f"tiny_16k_{part}.safetensors"
        save_safetensors(path, {k: v.half().cpu() for k, v in state.items()}, {"variant": "tiny_16k", "part": part})
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")


COMMANDS = {
    "render": render, "clip": train_clip, "sync": train_sync, "vae": train_vae, "vocoder": train_vocoder,
    "compare_vocoders": compare_vocoders,
    "extract": extract, "flow": train_flow, "pack": pack,
}  # fmt: skip


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="data, checkpoints and features")
    parser.add_argument("--clips", type=int, default=1500, help="training clips to render (7.5 MB each)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="rendering processes")
    parser.add_argument("--minutes", type=float, default=10.0, help="training budget of this part")
    parser.add_argument("--batch", type=int, default=32, help="batch size of sync and flow")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of flow")
    parser.add_argument("--out", type=Path, default=BUNDLED_DIR, help="where pack writes")
    args = parser.parse_args(argv)
    COMMANDS[args.command](args)


if __name__ == "__main__":
    main()
