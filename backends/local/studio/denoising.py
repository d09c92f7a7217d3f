"""From noise to a picture's code, a step at a time: DDIM, in numpy, by a diffusers folder's own scheduler config.

Source: https://arxiv.org/abs/2010.02502, formula 12, without added noise; as in diffusers' DDIMScheduler.  Whatever
sampler a folder names, a model that was trained on noise of this kind can be sampled so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

_FOREIGN = ("FlowMatch", "Consistency", "LCM", "EDM", "Cosine")
"""Of samplers for models that were trained in another way, what their names have in them."""
_UNKNOWN = ("thresholding", "rescale_betas_zero_snr")


class Ddim:
    """One way from noise to a code.  Raises ValueError for a config that asks for another."""

    def __init__(self, config: Mapping[str, Any], steps: int) -> None:
        named = str(config.get("_class_name", ""))
        if any(foreign in named for foreign in _FOREIGN) or any(config.get(name) for name in _UNKNOWN):
            raise ValueError(f"a model with the sampler {named or 'of this config'} cannot be sampled by DDIM")
        self._kind = config.get("prediction_type", "epsilon")
        if self._kind not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction_type '{self._kind}' is unknown")
        trained = int(config.get("num_train_timesteps", 1000))
        self._kept = np.cumprod(1.0 - _betas(config, trained))
        """How much of the picture is left at each step of the training, squared."""
        self._last = 1.0 if config.get("set_alpha_to_one", True) else float(self._kept[0])
        self._clip = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", False) else None
        self._stride = trained // steps
        self.times: Sequence[int] = _times(config, trained, steps)
        """The training's steps that are taken, in their order: the noisiest first."""

    def noised(self, code: Array, noise: Array, time: int) -> Array:
        """The code as it is at this time of the way."""
        kept = float(self._kept[time])
        return math.sqrt(kept) * code + math.sqrt(1 - kept) * noise

    def step(self, code: Array, predicted: Array, time: int) -> tuple[Array, Array]:
        """The code one step on, and what the whole of it is taken to be by now."""
        kept = float(self._kept[time])
        before = time - self._stride
        goal = float(self._kept[before]) if before >= 0 else self._last
        clean, noise = self._parted(code, predicted, kept)
        if self._clip is not None:
            clean = np.clip(clean, -self._clip, self._clip)
        return math.sqrt(goal) * clean + math.sqrt(1 - goal) * noise, clean

    def _parted(self, code: Array, predicted: Array, kept: float) -> tuple[Array, Array]:
        """The picture's code and the noise in it."""
        signal, spread = math.sqrt(kept), math.sqrt(1 - kept)
        if self._kind == "v_prediction":
            return signal * code - spread * predicted, signal * predicted + spread * code
        if self._kind == "sample":
            return predicted, (code - signal * predicted) / spread
        return (code - spread * predicted) / signal, predicted


def _betas(config: Mapping[str, Any], trained: int) -> NDArray[np.float64]:
    """The noise that each step of the training adds."""
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], np.float64)
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    match config.get("beta_schedule", "linear"):
        case "linear":
            return np.linspace(start, end, trained)
        case "scaled_linear":
            return np.linspace(math.sqrt(start), math.sqrt(end), trained) ** 2
        case "squaredcos_cap_v2":
            left = np.square(np.cos((np.arange(trained + 1) / trained + 0.008) / 1.008 * math.pi / 2))
            return np.asarray(np.minimum(1 - left[1:] / left[:-1], 0.999))
        case other:
            raise ValueError(f"beta_schedule '{other}' is unknown")


def _times(config: Mapping[str, Any], trained: int, steps: int) -> list[int]:
    times: NDArray[Any]
    match config.get("timestep_spacing", "leading"):
        case "leading":
            times = np.arange(steps)[::-1] * (trained // steps) + int(config.get("steps_offset", 0))
        case "trailing":
            times = np.round(np.arange(trained, 0, -trained / steps)) - 1
        case "linspace":
            times = np.round(np.linspace(0, trained - 1, steps))[::-1]
        case other:
            raise ValueError(f"timestep_spacing '{other}' is unknown")
    return [min(max(int(time), 0), trained - 1) for time in times]
