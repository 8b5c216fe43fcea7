"""Which files there are and where copies of them lie: the official table, the folders, the search in them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

BUNDLED_DIR = Path(__file__).parent.parent / "bundled"
SUB_FOLDERS = ("", "weights", "ext_weights")  # the official layout keeps networks and codecs apart


class WeightError(Exception):
    """A weight file is missing, damaged, unsafe or of another shape. One line: file, got, expected, remedy."""


@dataclass(frozen=True)
class WeightFile:
    """One file that a variant needs, and every name under which people keep it."""

    name: str  # final name in a weights folder
    url: str | None  # None: comes with the package
    md5: str | None = None
    size: str | None = None  # as published or computed from the parameter count: "601M", powers of 1024
    licence: str = ""
    aliases: tuple[str, ...] = ()  # other relative paths with the same tensors; only looked for, never written
    hub_repos: tuple[str, ...] = ()  # repositories (a renamed one has two) whose local cache may hold it
    hub_file: str | None = None
    sha256: str | None = None  # or its first digits, where only these are published; used if there is no MD5

    @property
    def approx_bytes(self) -> int | None:
        """`size` as a number; it is rounded, so good for a plausibility check only."""
        if self.size is None:
            return None
        return int(float(self.size[:-1]) * 1024 ** ("BKMG".index(self.size[-1])))

    @property
    def local_names(self) -> tuple[str, ...]:
        """Names to look for, best first: a converted file loads faster than the official one."""
        return (str(Path(self.name).with_suffix(".safetensors")), self.name, *self.aliases)


# ---- the official files -------------------------------------------------------------------------------------------

HUB = "https://huggingface.co"
_MMAUDIO_HUB = "hkchengrex/MMAudio"
_RELEASE = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1"
_BY_NC = "CC-BY-NC-4.0 (checkpoint licence stated by the authors)"


def _network(name: str, md5: str, size: str) -> WeightFile:
    stem, hub_file = name.removesuffix(".pth"), f"weights/{name}"
    return WeightFile(
        name, f"{HUB}/{_MMAUDIO_HUB}/resolve/main/{hub_file}", md5, size, _BY_NC,
        aliases=(f"{stem}_fp32.safetensors", f"{stem}_fp16.safetensors"),
        hub_repos=(_MMAUDIO_HUB,), hub_file=hub_file,
    )  # fmt: skip


def _external(name: str, md5: str | None, size: str, licence: str) -> WeightFile:
    return WeightFile(
        name, f"{_RELEASE}/{name}", md5, size, licence, hub_repos=(_MMAUDIO_HUB,), hub_file=f"ext_weights/{name}"
    )


OFFICIAL: dict[str, WeightFile] = {
    file.name: file
    for file in (
        _network("mmaudio_small_16k.pth", "af93cde404179f58e3919ac085b8033b", "601M"),
        _network("mmaudio_small_44k.pth", "babd74c884783d13701ea2820a5f5b6d", "601M"),
        _network("mmaudio_medium_44k.pth", "5a56b6665e45a1e65ada534defa903d0", "2.4G"),
        _network("mmaudio_large_44k.pth", "fed96c325a6785b85ce75ae1aafd2673", "3.9G"),
        _network("mmaudio_large_44k_v2.pth", "01ad4464f049b2d7efdaa4c1a59b8dfe", "3.9G"),
        _external("v1-16.pth", "69f56803f59a549a1a507c93859fd4d7", "655M", _BY_NC),
        _external("v1-44.pth", "fab020275fa44c6589820ce025191600", "1.2G", _BY_NC),
        _external(
            "best_netG.pt", "eeaf372a38a9c31c362120aba2dde292", "429M",
            "redistributed from Make-An-Audio 2; licence of the original weights not stated in the MMAudio docs",
        ),
        _external(
            "synchformer_state_dict.pth", "5b2f5594b0730f70e41e549b7c94390c", "907M",
            "from Synchformer (MIT code); redistributed with the release",
        ),
        _external("empty_string.pth", None, "308K", _BY_NC),  # one tensor (1, 77, 1024); training only
        WeightFile(
            "bigvgan_v2_44khz_128band_512x.pt",
            f"{HUB}/nvidia/bigvgan_v2_44khz_128band_512x/resolve/main/bigvgan_generator.pt",
            None, "466M", "MIT",
            aliases=("bigvgan_v2_44khz_128band_512x/bigvgan_generator.pt", "bigvgan_generator.pt"),
            hub_repos=("nvidia/bigvgan_v2_44khz_128band_512x",), hub_file="bigvgan_generator.pt",
        ),
        WeightFile(
            "DFN5B-CLIP-ViT-H-14-384.bin",
            f"{HUB}/apple/DFN5B-CLIP-ViT-H-14-384/resolve/main/open_clip_pytorch_model.bin",
            None, "3.7G", "apple-sample-code-license (per its model page)",
            aliases=tuple(f"DFN5B-CLIP-ViT-H-14-{n}/open_clip_pytorch_model.bin" for n in (384, 378)),
            # the repository was renamed to -378; caches from before and after carry different names
            hub_repos=("apple/DFN5B-CLIP-ViT-H-14-384", "apple/DFN5B-CLIP-ViT-H-14-378"),
            hub_file="open_clip_pytorch_model.bin",
        ),
    )
}  # fmt: skip


# ---- finding ------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/mmaudio`, else `~/.cache/mmaudio`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmaudio"


def download_dir(weights_dir: str | os.PathLike | None = None) -> Path:
    """Where a download goes: the given folder, else `$MMAUDIO_WEIGHTS`, else the cache."""
    chosen = weights_dir or os.environ.get("MMAUDIO_WEIGHTS")
    return Path(chosen).expanduser() if chosen else cache_dir()


def search_dirs(weights_dir: str | os.PathLike | None = None) -> list[Path]:
    """Folders in the order in which they win: given, bundled, `$MMAUDIO_WEIGHTS`, cache.

    A folder that somebody names explicitly comes before the bundled one, so that one's own training of a bundled
    variant can take its place.
    """
    given = [Path(weights_dir).expanduser()] if weights_dir else []
    return list(dict.fromkeys([*given, BUNDLED_DIR, download_dir(), cache_dir()]))


def find(file: WeightFile, weights_dir: str | os.PathLike | None = None) -> Path | None:
    """The first local copy of `file`, or None. Files already in the Hugging Face cache count, too, as the last resort.

    Nothing is hashed here (seconds per gigabyte): `verify` does that, and `read_state` notices a damaged file.
    """
    for folder in search_dirs(weights_dir):
        for sub_folder in SUB_FOLDERS:
            for name in file.local_names:
                path = folder / sub_folder / name
                if path.is_file():
                    return path
    if file.hub_repos and file.hub_file:
        from huggingface_hub import constants

        for repo in file.hub_repos:
            if not (Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}").is_dir():
                continue  # the question itself takes longer to import
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(repo, file.hub_file)
            if isinstance(cached, str):  # else None, or a marker for "known not to exist"
                return Path(cached)
    return None


def remedy_for(file: WeightFile, folder: Path) -> str:
    if file.url is None:
        return f"it comes with the package: reinstall mmaudio, or put the file into {folder}"
    return f"download {file.url} ({file.size or 'size unknown'}) and save it as {(folder / file.name).absolute()}"
