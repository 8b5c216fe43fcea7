"""mmaudio: synchronised sound for silent video, from the video, a text prompt or both.

    import mmaudio
    pipe = mmaudio.load("tiny_16k")
    pipe(video="clip.mp4", prompt="a metal ball bounces on wood")[0].save_video("out.mp4")

Importing the package loads no network and no heavy library; what is needed is imported on first use.
"""

from mmaudio.version import __version__

_LAZY = {
    "Pipeline": "mmaudio.pipeline",
    "Generation": "mmaudio.generation",
    "load": "mmaudio.catalogue",
    "list_variants": "mmaudio.catalogue",
}
__all__ = ["Generation", "Pipeline", "__version__", "list_variants", "load"]


def __getattr__(name: str):
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mmaudio' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LAZY])
