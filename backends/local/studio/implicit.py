"""The network of our own small models: a place in [-1, 1]³ → how far the surface is, and which colour is there.

What is asked for and a little chance modulate its layers (FiLM).  Imports numpy: for child processes only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[np.floating[Any]]


class Network:
    """The weights of a model."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        """config: `hidden` units a layer, `frequencies` of places, `chance` numbers and their `chance_max`, `words`.

        Raises ValueError when the weights do not fit the layout.
        """
        self.frequencies: int = config["frequencies"]
        self._chance: int = config["chance"]
        self._chance_max: float = config["chance_max"]
        # Transposed once, so that places are rows.
        self.weights = {name: np.ascontiguousarray(w.astype(np.float32).T) for name, w in load_file(path).items()}
        hidden, place, said = config["hidden"], 3 * (1 + 2 * self.frequencies), len(config["words"]) + self._chance
        shapes = {"t1": said, "l0": place, "l1": hidden, "l2": hidden + place, "l3": hidden, "o": hidden}
        wrong = [name for name, rows in shapes.items() if self.weights[f"{name}.weight"].shape[0] != rows]
        if wrong:
            raise ValueError(f"the layers {', '.join(wrong)} are of another size than config.json says")

    def field(self, said: Sequence[float], seed: int) -> "Field":
        """The thing that is asked for; the seed is of the chance in its shape."""
        chance = np.random.default_rng(seed).normal(size=self._chance).clip(-self._chance_max, self._chance_max)
        return Field(self, np.concatenate([said, chance]).astype(np.float32))

    def layer(self, name: str, x: Array) -> Array:
        out: Array = x @ self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return out


class Field:
    """One thing: how far its surface is from any place (negative inside), and its colours."""

    def __init__(self, network: Network, asked: Array) -> None:
        self._network = network
        modulation = network.layer("t2", _silu(network.layer("t1", asked)))
        self._scale, self._shift1, self._shift2 = np.split(modulation, 3)

    def distances(self, places: Array) -> Array:
        return self._at(places)[:, 0]

    def colours(self, places: Array) -> Array:
        """In sRGB, 0 to 1."""
        out: Array = 1 / (1 + np.exp(-self._at(places.astype(np.float32))[:, 1:]))
        return out

    def _at(self, places: Array) -> Array:
        layer, encoded = self._network.layer, self._encoded(places)
        h = _silu(layer("l0", encoded) * (1 + self._scale))
        h = _silu(layer("l1", h) + self._shift1)
        h = _silu(layer("l2", np.concatenate([h, encoded], -1)) + self._shift2)
        return layer("o", _silu(layer("l3", h)))

    def _encoded(self, places: Array) -> Array:
        waves = [places]
        for octave in range(self._network.frequencies):
            angle = places * np.float32(2**octave * np.pi / 2)
            waves += [np.sin(angle), np.cos(angle)]
        return np.concatenate(waves, -1)


def _silu(x: Array) -> Array:
    out: Array = x / (1 + np.exp(-np.maximum(x, -80)))  # beyond that it is 0 anyway, but for an overflow
    return out
