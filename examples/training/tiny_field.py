"""Train local/tiny-3d: words to a coloured signed distance field, on objects that are known exactly.

    python -m examples.training.tiny_field OUT.safetensors --minutes 35

Needs torch.  The layout is the one of backends/local/models/tiny-3d/config.json, which also runs the result.
"""

import argparse
import math
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from safetensors.numpy import save_file
from torch import nn

from examples.training.solids import COLOURS, THINGS, field

CONFIG = Path(__file__).parents[2] / "backends/local/models/tiny-3d/config.json"
OBJECTS, PLACES = 20, 384
"""In one step: so many objects, and of each so many places."""
CHANCE_MAX = 1.3
NEAR = 0.2
"""Farther away than this, how far does not matter."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    config = msgspec.json.decode(CONFIG.read_bytes())
    network = layers(config)
    optimizer = torch.optim.Adam([p for layer in network.values() for p in layer.parameters()], 2e-3)
    rng, nprng = random.Random(0), np.random.default_rng(0)  # noqa: S311
    begun, step = time.monotonic(), 0
    while (done := (time.monotonic() - begun) / (asked.minutes * 60)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-5
        said, places, distances, colours = (
            torch.tensor(np.stack(one), dtype=torch.float32)
            for one in zip(*(example(config, rng, nprng) for _ in range(OBJECTS)), strict=True)
        )
        out = forward(network, config, said, places)
        far = (out[..., 0].clamp(-NEAR, NEAR) - distances.clamp(-NEAR, NEAR)).abs().mean()
        near = (distances.abs() < 0.08).float().unsqueeze(-1)
        hue = (near * (torch.sigmoid(out[..., 1:]) - colours).abs()).sum() / (near.sum() * 3 + 1)
        optimizer.zero_grad()
        (far * 5 + hue).backward()
        optimizer.step()
        if step % 300 == 0:
            print(f"{step}: distance {far.item():.4f}, colour {hue.item():.4f}", flush=True)
        step += 1
    weights = {f"{name}.{k}": v for name, layer in network.items() for k, v in layer.state_dict().items()}
    save_file({name: weight.numpy().astype(np.float16) for name, weight in weights.items()}, asked.out)


def layers(config: dict[str, Any]) -> dict[str, Any]:
    hidden, place = config["hidden"], 3 * (1 + 2 * config["frequencies"])
    sizes = {
        "t1": (len(config["words"]) + config["chance"], 64),
        "t2": (64, hidden * 3),
        "l0": (place, hidden),
        "l1": (hidden, hidden),
        "l2": (hidden + place, hidden),
        "l3": (hidden, hidden),
        "o": (hidden, 4),
    }
    return {name: nn.Linear(*size) for name, size in sizes.items()}


def forward(network: dict[str, Any], config: dict[str, Any], said: Any, places: Any) -> Any:
    """As `backends.local.studio.implicit` does it."""
    waves = [places]
    for octave in range(config["frequencies"]):
        angle = places * (2**octave * math.pi / 2)
        waves += [torch.sin(angle), torch.cos(angle)]
    encoded = torch.cat(waves, -1)
    scale, first, second = network["t2"](F.silu(network["t1"](said))).unsqueeze(1).chunk(3, -1)
    h = F.silu(network["l0"](encoded) * (1 + scale))
    h = F.silu(network["l1"](h) + first)
    h = F.silu(network["l2"](torch.cat([h, encoded], -1)) + second)
    return network["o"](F.silu(network["l3"](h)))


def example(config: dict[str, Any], rng: random.Random, nprng: Any) -> tuple[Any, Any, Any, Any]:
    """An object: what is said of it with its chance, places (most of them near its surface), distances, colours."""
    thing, colour = rng.choice(THINGS), rng.choice(list(COLOURS))
    chance = nprng.normal(size=config["chance"]).clip(-CHANCE_MAX, CHANCE_MAX)
    said = np.zeros(len(config["words"]))
    for word in ("a", colour, thing):
        said[config["words"].index(word)] = 1
    places = nprng.uniform(-1, 1, (PLACES * 8, 3))
    distances, colours = field(thing, COLOURS[colour], chance, places)
    near, inside = np.argsort(np.abs(distances))[: PLACES * 2], np.flatnonzero(distances < 0)
    picked = np.concatenate(
        [
            nprng.choice(near, PLACES * 5 // 8),
            nprng.choice(inside, PLACES // 8),
            nprng.integers(0, len(places), PLACES // 4),
        ]
    )
    return np.concatenate([said, chance]), places[picked], distances[picked], colours[picked]


if __name__ == "__main__":
    main()
