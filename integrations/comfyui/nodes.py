"""ComfyUI nodes: load a variant; make sound for a batch of images with its frame rate, a picture, or words alone."""

import importlib
from pathlib import Path

import torch

from mmaudio.catalogue import best_installed, load
from mmaudio.media.pictures import picture_frames
from mmaudio.variants import VARIANTS

PRECISIONS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
MAX_SEED = 2**53 - 1  # the largest whole number that a browser hands over unchanged


def comfy(name: str):
    """A module of ComfyUI; None where the nodes are used without it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def models_folder() -> Path | None:
    """`models/mmaudio` of ComfyUI, where weights are looked for first and downloaded to."""
    paths = comfy("folder_paths")
    return Path(paths.models_dir) / "mmaudio" if paths else None


class MMAudioLoader:
    """A variant by name, with its weights; official ones that are not here are downloaded."""

    CATEGORY, FUNCTION = "audio/mmaudio", "load"
    RETURN_TYPES, RETURN_NAMES = ("MMAUDIO_MODEL",), ("model",)
    DESCRIPTION = "Loads an MMAudio variant. The official weights are for non-commercial use (CC BY-NC 4.0)."

    @classmethod
    def INPUT_TYPES(cls):
        names = ["auto", *VARIANTS]
        return {
            "required": {
                "variant": (names, {"default": "auto", "tooltip": "auto: the best one whose weights are installed"}),
                "precision": (list(PRECISIONS), {"default": "auto", "tooltip": "auto: bfloat16 on CUDA, else float32"}),
                "low_memory": ("BOOLEAN", {"default": False, "tooltip": "keep one part in memory at a time"}),
            }
        }

    def load(self, variant: str, precision: str, low_memory: bool):
        folder, management = models_folder(), comfy("comfy.model_management")
        name = best_installed(folder) if variant == "auto" else variant
        device = management.get_torch_device() if management else None
        return (load(name, device, PRECISIONS[precision], folder, low_memory),)


class MMAudioGenerate:
    """Sound as ComfyUI's AUDIO: {"waveform": float32 (takes, channels, samples), "sample_rate": Hz}."""

    CATEGORY, FUNCTION = "audio/mmaudio", "generate"
    RETURN_TYPES, RETURN_NAMES = ("AUDIO",), ("audio",)
    DESCRIPTION = "Makes sound for images at their frame rate, for one image, or for the prompt alone."

    @classmethod
    def INPUT_TYPES(cls):
        duration = "seconds; 0: as long as the images, 8 without images or for one image"
        return {
            "required": {
                "model": ("MMAUDIO_MODEL",),
                "prompt": ("STRING", {"default": "", "multiline": True}),
                "negative_prompt": ("STRING", {"default": "", "multiline": True}),
                "seed": ("INT", {"default": 42, "min": 0, "max": MAX_SEED, "control_after_generate": True}),
                "steps": ("INT", {"default": 25, "min": 1, "max": 1000}),
                "cfg": ("FLOAT", {"default": 4.5, "min": 0.0, "max": 100.0, "step": 0.1}),
                "duration": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 30.0, "step": 0.01, "tooltip": duration}),
                "takes": ("INT", {"default": 1, "min": 1, "max": 64, "tooltip": "take i has the seed plus i"}),
            },
            "optional": {
                "images": ("IMAGE",),
                "frame_rate": ("FLOAT", {"default": 25.0, "min": 0.1, "max": 240.0, "step": 0.001}),
            },
        }

    def generate(
        self, model, prompt: str, negative_prompt: str, seed: int, steps: int, cfg: float, duration: float, takes: int,
        images: torch.Tensor | None = None, frame_rate: float = 25.0,
    ):  # fmt: skip
        pictures = None if images is None else torch.stack([as_bytes(image) for image in images])  # (N, 3, H, W)
        seconds = duration or None
        if pictures is not None and len(pictures) > 1:
            what = {"video": picture_frames(pictures, frame_rate, seconds, rule=model.variant.frame_rule)}
        else:
            what = {"image": None if pictures is None else pictures[0], "duration": seconds}
        generations = model(
            prompt=prompt, negative_prompt=negative_prompt, seed=seed, num_steps=steps, cfg_strength=cfg,
            num_samples=takes, progress=progress_of(steps), **what,
        )  # fmt: skip
        waveform = torch.stack([generation.audio for generation in generations])  # (takes, channels, samples)
        return ({"waveform": waveform, "sample_rate": generations[0].sample_rate},)


def as_bytes(image: torch.Tensor) -> torch.Tensor:
    """ComfyUI's (H, W, C) float in 0..1, C = 3 or 4 with transparency, to uint8 (3, H, W)."""
    return (image[..., :3] * 255).round().clamp(0, 255).to("cpu", torch.uint8).permute(2, 0, 1)


def progress_of(steps: int):
    """Moves ComfyUI's progress bar with the solver, and raises ComfyUI's own exception once "cancel" is pressed."""
    management, utils = comfy("comfy.model_management"), comfy("comfy.utils")
    bar = utils.ProgressBar(steps) if utils else None

    def report(stage: str, done: int, total: int) -> None:
        if management:
            management.throw_exception_if_processing_interrupted()
        if bar and stage == "solve" and total:
            bar.update_absolute(done, total)

    return report


NODE_CLASS_MAPPINGS = {"MMAudioLoader": MMAudioLoader, "MMAudioGenerate": MMAudioGenerate}
NODE_DISPLAY_NAME_MAPPINGS = {"MMAudioLoader": "MMAudio Loader", "MMAudioGenerate": "MMAudio Generate"}
