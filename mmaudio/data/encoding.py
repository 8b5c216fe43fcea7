"""Units of an extraction through the encoders, into parts: the same media, feature and codec code as inference."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmaudio.codec.codec import AudioCodec
from mmaudio.codec.mel import MelSpectrogram
from mmaudio.data.clip_cache import CachedClip
from mmaudio.data.loader import worker_count
from mmaudio.data.manifest import ManifestRow
from mmaudio.data.parts import Parts
from mmaudio.data.preparation import ClipError, Preparation, Prepared
from mmaudio.features.clip import ClipEncoder
from mmaudio.features.synchformer import SynchformerVisual
from mmaudio.loading import load_clip_text, load_clip_vision, load_sync, load_vae
from mmaudio.media import MediaError
from mmaudio.variants import Variant


@dataclass(frozen=True)
class Unit:
    """What is done, saved and skipped as a whole: a manifest row, or else some captions."""

    row: ManifestRow | CachedClip | None = None
    captions: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """Of its part. A row that was given another file or start is another unit."""
        row = self.row
        what = ["captions", *self.captions] if row is None else [row.id, os.path.abspath(row.path), row.start]
        return hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()


class Encoders:
    """The networks that make features, each loaded when it is first needed; precisions are those of `Pipeline`.

    The codec stays float32 everywhere: latents are what the network is trained to hit.
    """

    def __init__(self, variant: Variant, device: torch.device, weights_dir: str | None = None):
        self.variant, self.device, self.weights_dir = variant, device, weights_dir
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    @cached_property
    def codec(self) -> AudioCodec:
        mel, vae = MelSpectrogram(self.variant.mel), load_vae(self.variant, self.weights_dir)
        return AudioCodec(mel, vae, vocoder=None).to(self.device)

    @cached_property
    def clip(self) -> ClipEncoder:
        return ClipEncoder(load_clip_vision(self.variant, self.weights_dir).to(self.device, self.dtype), None)

    @cached_property
    def words(self) -> ClipEncoder:
        return ClipEncoder(None, load_clip_text(self.variant, self.weights_dir).to(self.device, self.dtype))

    @cached_property
    def sync(self) -> SynchformerVisual:
        return load_sync(self.variant, self.weights_dir).to(self.device, self.dtype)

    def features(self, prepared: Prepared) -> dict[str, Tensor]:
        """mean and std (n, L, C) float32; of videos also clip (1, T, D) and sync (1, S, D) bfloat16; all on the CPU.

        One unit at a time, however many there are: a clip's 64 + 200 pictures fill a GPU, and what else is in a batch
        can then not change a clip's features in the last bit.
        """
        posterior = self.codec.encode(prepared.waveforms.to(self.device))
        found = {"mean": posterior.mean.float(), "std": posterior.std.float()}
        if prepared.clip is not None:
            found["clip"] = self.clip.image(prepared.clip[None]).bfloat16()
            found["sync"] = self.sync.encode(prepared.sync[None]).bfloat16()
        return {name: tensor.cpu() for name, tensor in found.items()}

    def captions(self, captions: tuple[str, ...]) -> dict[str, Tensor]:
        """text (K, 77, D) bfloat16."""
        return {"text": self.words.text(list(captions)).bfloat16().cpu()}


def prepare_unit(unit: Unit, preparation: Preparation) -> Prepared | str | None:
    """What `finish_unit` needs: the media, or the reason why they cannot be used; None for captions."""
    row = unit.row
    try:
        return None if row is None else preparation(row)
    except (MediaError, ClipError) as error:
        return str(error)
    except Exception as error:  # whatever one file among many thousands does must not end the run
        return f"{row.path}: {type(error).__name__}: {error}"


def finish_unit(unit: Unit, prepared: Prepared | str | None, encoders: Encoders, parts: Parts) -> str | None:
    """Encode and save; returns the reason if the unit failed, which is saved in place of its part."""
    reason = prepared if isinstance(prepared, str) else None
    if prepared is None:
        parts.save(unit.name, encoders.captions(unit.captions), {})
    elif reason is None:
        features = encoders.features(prepared)
        if all(tensor.half().isfinite().all() for tensor in features.values()):  # also as they may be stored
            parts.save(unit.name, features, {"ids": prepared.ids, "rejected": prepared.rejected})
        else:
            reason = f"{unit.row.path}: its features are not finite"
    if reason is not None:
        parts.fail(unit.name, " ".join(reason.split()))
    return reason


class _PreparedUnits(Dataset):
    """For the loader's processes."""

    def __init__(self, units: list[Unit], preparation: Preparation):
        self.units, self.preparation = units, preparation

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: int) -> Prepared | str | None:
        return prepare_unit(self.units[index], self.preparation)


def extract_units(
    units: list[Unit], preparation: Preparation, encoders: Encoders, parts: Parts, num_workers: int
) -> Iterator[str | None]:
    """`num_workers` processes prepare while this one encodes; yields what `finish_unit` returns, in order."""
    loader = DataLoader(_PreparedUnits(units, preparation), batch_size=None, num_workers=worker_count(num_workers))
    for unit, prepared in zip(units, loader, strict=True):
        yield finish_unit(unit, prepared, encoders, parts)
