"""Small feature stores, and ways to spoil them."""

import json
from types import SimpleNamespace

import torch
from torch.nn.functional import normalize

from mmaudio.data.store import StoreRow, write_store
from mmaudio.sequence import SPEC_16K

SPEC = SPEC_16K.with_duration(1.0)  # 32 latents, 8 CLIP frames, 16 sync tokens
DIMS = {"latent": 3, "clip": 6, "sync": 5, "text": 4, "tokens": 7}
IDENTITY = {"vae": "codec-a", "clip": "clip-a", "sync": "sync-a"}


def network_of(dims=DIMS):
    return SimpleNamespace(
        latent_dim=dims["latent"], clip_dim=dims["clip"], sync_dim=dims["sync"], text_dim=dims["text"],
        text_len=dims["tokens"],
    )  # fmt: skip


VARIANT = SimpleNamespace(name="toy", spec=SPEC, network=network_of())


def make_rows(count, video=True, captions=("wood", "glass", None), seed=0, spec=SPEC, dims=DIMS, prefix="clip"):
    """Rows like those of real encoders: unit norms, latents of different means and scales."""
    generator = torch.Generator().manual_seed(seed)

    def normal(length, dim):
        return torch.randn(length, dims[dim], generator=generator)

    scale = torch.linspace(0.5, 2, dims["latent"])
    return [
        StoreRow(
            id=f"{prefix}_{i}",
            caption=captions[i % len(captions)],
            mean=normal(spec.latent_len, "latent") * scale + scale,
            std=normal(spec.latent_len, "latent").mul(0.3).exp() / 3,
            clip=normalize(normal(spec.clip_len, "clip"), dim=-1) if video else None,
            sync=normal(spec.sync_len, "sync") if video else None,
        )
        for i in range(count)
    ]


def make_texts(captions=("wood", "glass", ""), seed=1, dims=DIMS):
    generator = torch.Generator().manual_seed(seed)
    return [(c, normalize(torch.randn(dims["tokens"], dims["text"], generator=generator), dim=-1)) for c in captions]


def write(path, rows=None, texts=None, **changes):
    rows = make_rows(5) if rows is None else rows
    arguments = {"count": len(rows), "variant": "toy", "spec": SPEC, "identity": IDENTITY} | changes
    return write_store(path, rows, make_texts() if texts is None else texts, **arguments)


def entry(store, weight=1.0, video=True, text=True):
    return SimpleNamespace(store=str(store), weight=weight, video=video, text=text)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def poke(store, field, row, value):
    """Overwrite the first number of a row in the file itself."""
    from mmaudio.data.store import open_store

    tensor = open_store(store).tensors[field]
    name = field if (store / f"{field}.memmap").exists() else f"{field}_features"
    with open(store / f"{name}.memmap", "r+b") as file:
        file.seek(row * tensor[0].nbytes)
        file.write(torch.tensor([value], dtype=tensor.dtype).view(torch.uint8).numpy().tobytes())


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text
