"""Turn a Stable Diffusion folder into one that runs without torch as well: ONNX graphs beside its weights.

    python -m examples.training.export_onnx FROM TO

Needs the extra `image`, and `pip install onnx onnxscript`.  TO becomes a copy of FROM, in fp16, with `model.onnx` in
`text_encoder`, `unet`, `vae_decoder` and `vae_encoder`, as optimum lays them out.  A graph takes its weights from
the safetensors file in its own folder, where there is one, so that they are there once.
"""

import argparse
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import StableDiffusionPipeline

TOLERANCE = 1e-3
"""Of what the graphs make, against torch."""
SHARED_FROM_BYTES = 256
"""Smaller weights stay in the graph."""

Module = Any
Dims = dict[int, str]


class Part(torch.nn.Module):  # type: ignore[misc]
    """A network of the pipeline, with the inputs and the output that its graph has."""

    def __init__(self, inner: Module) -> None:
        super().__init__()
        self.inner = inner


class TextEncoder(Part):
    def forward(self, input_ids: Any) -> Any:
        return self.inner(input_ids).last_hidden_state


class Unet(Part):
    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        return self.inner(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class VaeDecoder(Part):
    def forward(self, latent_sample: Any) -> Any:
        return self.inner.decode(latent_sample, return_dict=False)[0]


class VaeEncoder(Part):
    def forward(self, sample: Any) -> Any:
        return self.inner.encode(sample).latent_dist.parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    asked = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(
        asked.source, use_safetensors=True, local_files_only=True, safety_checker=None
    )
    pipeline.to(torch.float16).save_pretrained(asked.target, safe_serialization=True)
    export(pipeline.to(torch.float32), asked.target)
    tidy(asked.target)
    size = sum(file.stat().st_size for file in asked.target.rglob("*") if file.is_file())
    print(f"{asked.target}: {size / 1e6:.1f} MB")


def tidy(folder: Path) -> None:
    """Fit for others to read, and without a word of where it was made."""
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    for file in folder.rglob("*.json"):
        config = json.loads(file.read_text())
        if config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2) + "\n")


def export(pipeline: Any, folder: Path) -> None:
    """Write a pipeline's graphs into its folder.  Raises AssertionError where they differ from torch."""
    unet, tokens = pipeline.unet, pipeline.tokenizer.model_max_length
    side = unet.config.sample_size
    pixels = side * pipeline.vae_scale_factor
    ids = torch.randint(0, len(pipeline.tokenizer), (2, tokens))
    latents = torch.randn(2, unet.config.in_channels, side, side)
    codes = torch.randn(2, pipeline.vae.config.latent_channels, side, side)
    states = torch.randn(2, tokens, unet.config.cross_attention_dim)
    batch, picture = {0: "batch"}, {0: "batch", 2: "height", 3: "width"}
    parts: dict[str, tuple[Module, dict[str, tuple[Any, Dims]], str]] = {
        "text_encoder": (
            TextEncoder(pipeline.text_encoder), {"input_ids": (ids, batch)}, "last_hidden_state",
        ),
        "unet": (
            Unet(unet),
            {
                "sample": (latents, picture),
                "timestep": (torch.tensor([500]), {}),
                "encoder_hidden_states": (states, batch),
            },
            "out_sample",
        ),
        "vae_decoder": (VaeDecoder(pipeline.vae), {"latent_sample": (codes, picture)}, "sample"),
        "vae_encoder": (
            VaeEncoder(pipeline.vae), {"sample": (torch.randn(2, 3, pixels, pixels), picture)}, "latent_parameters",
        ),
    }  # fmt: skip
    for name, (module, inputs, output) in parts.items():
        path = folder / name / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        module.eval()
        write_graph(module, inputs, output, path)
        halve(path)
        print(f"{name}: largest difference {difference(module, inputs, path):.1e}, {path.stat().st_size / 1e6:.2f} MB")


def write_graph(module: Module, inputs: dict[str, tuple[Any, Dims]], output: str, path: Path) -> None:
    program = torch.onnx.export(
        module,
        tuple(value for value, _ in inputs.values()),
        dynamo=True,
        # Folding constants would turn weights into others, which no file has.
        optimize=False,
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=tuple(dims for _, dims in inputs.values()),
        verbose=False,
    )
    program.save(str(path), external_data=False)


def halve(path: Path) -> None:
    """Keep a graph's weights in 16 bits, in the safetensors file beside it where that has them, and compute in 32."""
    model = onnx.load(str(path))
    graph = model.graph
    tell_nothing(model)
    file = next(iter(sorted(path.parent.glob("*.safetensors"))), None)
    known = tensors_of(file) if file else {}
    casts = []
    for weight in graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        half = onnx.numpy_helper.to_array(weight).astype(np.float16)
        stored = onnx.numpy_helper.from_array(half, f"{weight.name}.half")
        casts.append(
            onnx.helper.make_node(
                "Cast", [stored.name], [weight.name], name=f"{weight.name}.cast", to=onnx.TensorProto.FLOAT
            )
        )
        place = known.get(half.tobytes())
        if file is not None and place is not None and half.nbytes >= SHARED_FROM_BYTES:
            stored.ClearField("raw_data")
            stored.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", file.name), ("offset", place), ("length", half.nbytes)):
                entry = stored.external_data.add()
                entry.key, entry.value = key, str(value)
        weight.CopyFrom(stored)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))


def tell_nothing(model: Any) -> None:
    """Take out what only tells where a graph came from: it is larger than the graph."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for holder in (model.graph, *model.functions):
        holder.doc_string = ""
        for node in holder.node:
            node.doc_string = ""
            del node.metadata_props[:]


def tensors_of(file: Path) -> dict[bytes, int]:
    """Where in a safetensors file each of its tensors lies, by what it holds."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    head.pop("__metadata__", None)
    begins = 8 + length
    spans = [tensor["data_offsets"] for tensor in head.values()]
    return {data[begins + start : begins + end]: begins + start for start, end in spans}


def difference(module: Module, inputs: dict[str, tuple[Any, Dims]], path: Path) -> float:
    """The largest difference between what the graph and torch make.  Raises AssertionError where it is too large."""
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    values: Sequence[Any] = [value for value, _ in inputs.values()]
    with torch.no_grad():
        wanted = module(*values).numpy()
    given = {name: value.numpy() for name, value in zip(inputs, values, strict=True)}
    found = float(np.abs(session.run(None, given)[0] - wanted).max())
    assert found < TOLERANCE, f"{path} differs from torch by {found}"
    return found


if __name__ == "__main__":
    main()
