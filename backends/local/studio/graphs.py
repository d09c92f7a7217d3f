"""Stable Diffusion without torch: the ONNX graphs of a folder, as optimum lays them out, through onnxruntime.

    text_encoder/model.onnx   unet/model.onnx   vae_decoder/model.onnx   vae_encoder/model.onnx (to change pictures)

Beside them lie the tokenizer, the scheduler's config and those of `unet` and `vae`, as in any diffusers folder.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from backends.local.studio import Refused
from backends.local.studio.canvas import Size
from backends.local.studio.denoising import Array, Ddim
from backends.local.studio.diffusion import Tick, Wish
from backends.local.studio.prompt import Prompts

STEPS, GUIDANCE = 25, 5.0
STRENGTH = 0.75
"""Of a change to a whole picture; a hole in one is filled anew."""
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
_UNET_INPUTS = {"sample", "timestep", "encoder_hidden_states"}


class Graph:
    """One of a pipeline's networks."""

    def __init__(self, folder: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that have nothing to do sleep: others compute on this machine as well.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
        self._types = {one.name: _TYPES[one.type] for one in self._session.get_inputs()}
        self._ranks = {one.name: len(one.shape) for one in self._session.get_inputs()}

    @property
    def inputs(self) -> set[str]:
        return set(self._types)

    def __call__(self, **values: Any) -> Array:
        """Its first output; a single number is given in whatever shape it is wanted."""
        given = {}
        for name, value in values.items():
            array = np.asarray(value, self._types[name])
            given[name] = array.reshape([1] * self._ranks[name]) if array.ndim == 0 else array
        return np.asarray(self._session.run(None, given)[0], np.float32)


class GraphPainter:
    """The pipeline in a folder.  Raises OSError or ValueError for one that is not whole or of another kind."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._prompts = Prompts(folder / "tokenizer")
        self._scheduler = _read(folder / "scheduler" / "scheduler_config.json")
        self._text = Graph(folder / "text_encoder", threads)
        self._unet = Graph(folder / "unet", threads)
        self._decoder = Graph(folder / "vae_decoder", threads)
        self._encoder = Graph(folder / "vae_encoder", threads) if (folder / "vae_encoder").is_dir() else None
        if foreign := self._unet.inputs - _UNET_INPUTS:
            raise ValueError(f"this kind of model runs with torch only: its unet wants {', '.join(sorted(foreign))}")
        vae = _read(next(path for part in _VAES if (path := folder / part / "config.json").is_file()))
        unet = _read(folder / "unet" / "config.json")
        self._scale = float(vae.get("scaling_factor", 0.18215))
        self._shift = float(vae.get("shift_factor") or 0.0)
        self._channels = int(vae["latent_channels"])
        self._shrink = 2 ** (len(vae["block_out_channels"]) - 1)
        sides = unet["sample_size"]
        height, width = sides if isinstance(sides, list) else (sides, sides)
        self.native = width * self._shrink, height * self._shrink
        self.multiple = self._shrink * 2 ** (len(unet["block_out_channels"]) - 1)
        Ddim(self._scheduler, STEPS)

    def paint(self, wish: Wish, size: Size, seed: int, tick: Tick) -> Image.Image:
        steps = wish.steps or STEPS
        sampler = Ddim(self._scheduler, steps)
        guidance = GUIDANCE if wish.guidance is None else wish.guidance
        states = self._states(wish, guidance)
        shape = (1, self._channels, size[1] // self._shrink, size[0] // self._shrink)
        noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
        times, code, known = sampler.times, noise, None
        keep: Array | float = 0.0
        if wish.picture is not None:
            known = self._code(wish.picture)
            strength = wish.strength or (STRENGTH if wish.hole is None else 1.0)
            times = times[-max(1, int(steps * strength)) :]
            code = sampler.noised(known, noise, times[0])
            keep = 0.0 if wish.hole is None else 1 - _pixels(wish.hole.resize((shape[3], shape[2])))
        tick(0, len(times), lambda: None)
        for n, time in enumerate(times):
            predicted = self._predicted(code, time, states, guidance)
            code, clean = sampler.step(code, predicted, time)
            if known is not None and wish.hole is not None:
                later = sampler.noised(known, noise, times[n + 1]) if n + 1 < len(times) else known
                code = keep * later + (1 - keep) * code
            tick(n + 1, len(times), lambda clean=clean: self._picture(clean))  # type: ignore[misc]
        return self._picture(code)

    def _states(self, wish: Wish, guidance: float) -> Array:
        """What the unet is told: to paint this, and, where it is guided, what to lead away from."""
        texts = (wish.prompt,) if guidance <= 1 else (wish.negative_prompt or "", wish.prompt)
        return self._text(input_ids=self._prompts.read(*texts))

    def _predicted(self, code: Array, time: int, states: Array, guidance: float) -> Array:
        said = self._unet(sample=np.repeat(code, len(states), axis=0), timestep=time, encoder_hidden_states=states)
        return said if len(states) == 1 else said[:1] + guidance * (said[1:] - said[:1])

    def _code(self, picture: Image.Image) -> Array:
        if self._encoder is None:
            raise Refused("This model makes pictures but changes none.", "image", "unsupported_value")
        pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        # Older graphs draw a code; later ones say where it lies, and how widely it is spread.
        return (self._encoder(sample=pixels)[:, : self._channels] - self._shift) * self._scale

    def _picture(self, code: Array) -> Image.Image:
        pixels = self._decoder(latent_sample=code / self._scale + self._shift)[0].transpose(1, 2, 0)
        return Image.fromarray(np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8))


_VAES = ("vae", "vae_decoder")
"""Where its config is: in a diffusers folder, and in one that has graphs only."""


def load(folder: Path, spec: dict[str, Any]) -> GraphPainter:
    return GraphPainter(folder, spec["threads"])


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def _pixels(grey: Image.Image) -> Array:
    return np.asarray(grey.convert("L"), np.float32)[None, None] / 255
