"""Any pipeline of diffusers that makes pictures, with torch on a CPU or a GPU: the folder says which one it is.

Safetensors only, nothing from the network, and no code but diffusers' own.  What a pipeline takes is read from
its signature: a parameter that it has not is refused by name.
"""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from backends.local.studio import Refused
from backends.local.studio.canvas import Size
from backends.local.studio.diffusion import Look, Tick, Wish

# Read when huggingface_hub is imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DIFFUSERS_VERBOSITY="error")

import diffusers
import torch

_NATIVE = 512
"""Pixels a side, where a pipeline does not say what it learned from."""
_STRENGTH = 0.75
_CALLED = {
    "negative_prompt": "negative_prompt",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "strength": "strength",
}
"""The client's parameters, by diffusers' names."""


class PipelinePainter:
    """The pipeline in a folder.  Raises OSError or ValueError for one that cannot be loaded."""

    def __init__(self, folder: Path, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, dtype=dtype
        )
        self._own = pipeline.to(device)
        self._fills = "Inpaint" in type(pipeline).__name__
        shrink = int(getattr(pipeline, "vae_scale_factor", 8))
        self.native = _native(pipeline, shrink)
        # Some cut the code up into squares of two by two.
        self.multiple = shrink * 2
        self._by_task: dict[str, Any] = {}

    def paint(self, wish: Wish, size: Size, seed: int, tick: Tick) -> Image.Image:
        pipeline = self._for(wish)
        taken = inspect.signature(pipeline.__call__).parameters
        asked: dict[str, Any] = {"prompt": wish.prompt, "generator": torch.Generator("cpu").manual_seed(seed)}
        asked |= {name: side for name, side in zip(("width", "height"), size, strict=True) if name in taken}
        for ours, theirs in _CALLED.items():
            value = getattr(wish, ours)
            if value is not None and theirs not in taken:
                raise Refused(f"This model takes no '{ours}'.", ours, "unsupported_parameter")
            if value is not None:
                asked[theirs] = value
        if wish.picture is not None:
            asked["image"] = wish.picture
            if wish.hole is not None:
                asked["mask_image"] = wish.hole
            elif "strength" in taken:
                asked.setdefault("strength", _STRENGTH)
        if "callback_on_step_end" in taken:
            asked["callback_on_step_end"] = _stepping(pipeline, size, tick)
        with torch.inference_mode():
            made = pipeline(**asked)
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            raise Refused("The model's own safety checker held the picture back.", "prompt", "content_filter")
        picture: Image.Image = made.images[0]
        return picture

    def _for(self, wish: Wish) -> Any:
        """The pipeline of this task, which shares its networks with the others.  Raises Refused."""
        if self._fills and wish.hole is None:
            raise Refused("This model fills holes only: give a picture and a mask.", "mask", "unsupported_value")
        task = "Text2Image" if wish.picture is None else "Image2Image" if wish.hole is None else "Inpainting"
        if task not in self._by_task:
            try:
                pipeline = getattr(diffusers, f"AutoPipelineFor{task}").from_pipe(self._own)
            except ValueError as e:
                param = "prompt" if wish.picture is None else "image" if wish.hole is None else "mask"
                raise Refused(f"This model does no {_WORDS[task]}.", param, "unsupported_value") from e
            if task == "Inpainting" and not _fills_holes(pipeline):
                raise Refused(f"This model does no {_WORDS[task]}.", "mask", "unsupported_value")
            pipeline.set_progress_bar_config(disable=True)
            self._by_task[task] = pipeline
        return self._by_task[task]


_WORDS = {
    "Text2Image": "pictures from words alone",
    "Image2Image": "changes to pictures",
    "Inpainting": "changes to a part of a picture",
}


def _fills_holes(pipeline: Any) -> bool:
    """Diffusers' Stable Diffusion does so with codes of four numbers a place only, or with a network made for it."""
    network = getattr(pipeline, "unet", None)
    return network is None or network.config.in_channels in (4, 9)


def load(folder: Path, spec: dict[str, Any]) -> PipelinePainter:
    return PipelinePainter(folder, spec["device"], spec["threads"])


def _native(pipeline: Any, shrink: int) -> Size:
    """The size of the pictures that it learned from."""
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    learned = getattr(getattr(network, "config", None), "sample_size", None)
    sides = getattr(pipeline, "default_sample_size", None) or learned
    if sides is None:
        return _NATIVE, _NATIVE
    height, width = sides if isinstance(sides, (list, tuple)) else (sides, sides)
    return int(width) * shrink, int(height) * shrink


def _stepping(pipeline: Any, size: Size, tick: Tick) -> Callable[..., dict[str, Any]]:
    def step(_: Any, index: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        of = max(getattr(pipeline, "num_timesteps", 0), index + 1)
        if index == 0:
            tick(0, of, _blind)
        tick(index + 1, of, _looking(pipeline, state, size))
        return state

    return step


def _blind() -> None:
    return None


def _looking(pipeline: Any, state: dict[str, Any], size: Size) -> Look:
    """Decodes the code as it is by now, noise and all."""

    def look() -> Image.Image | None:
        code, vae = state.get("latents"), getattr(pipeline, "vae", None)
        if code is None or vae is None:
            return None
        if code.ndim == 3 and hasattr(pipeline, "_unpack_latents"):
            code = pipeline._unpack_latents(code, size[1], size[0], pipeline.vae_scale_factor)
        if code.ndim != 4:
            return None
        code = code / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)
        pixels = vae.decode(code.to(vae.dtype), return_dict=False)[0]
        picture: Image.Image = pipeline.image_processor.postprocess(pixels, output_type="pil")[0]
        return picture

    return look
