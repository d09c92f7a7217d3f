"""The engine of Shap-E: words or a picture → a mesh, by diffusers' own pipelines.

A model is a folder as diffusers writes it.  The tables of marching cubes are part of the published checkpoint, not of
the program: a folder without them makes no mesh, and is told from others before any work is done.
"""

import base64
import io
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from backends.local.studio import Job, Refused, Report
from backends.local.studio import serve as serve_jobs
from backends.local.studio.mesh import Mesh
from compat.canonical.message import GLB

STEPS, STEPS_MAX = 64, 250
GRID, GRID_MIN, GRID_MAX = 128, 16, 256
"""Points along each side of the grid that the mesh is made on."""
GUIDANCE = {"ShapEPipeline": 15.0, "ShapEImg2ImgPipeline": 3.0}
"""Per pipeline that is known here, what its makers use."""
BATCH = 4096
"""Points of the grid that are asked for at a time."""
PICTURE_MAX_PIXELS = 64_000_000
HEIGHT_M = 1.0
"""What it makes has no size of its own."""


def serve(spec: dict[str, Any], report: Report) -> NoReturn:
    """Load the folder at the spec's path and do jobs."""
    import torch

    torch.set_num_threads(spec["threads"])
    pipeline = load(Path(spec["path"]), spec.get("device", "cpu"))

    def make(job: Job) -> None:
        job.made(made(pipeline, job), GLB)

    serve_jobs(spec, report, make)


def load(folder: Path, device: str) -> Any:
    """Raises ValueError for a folder with another pipeline."""
    import diffusers
    import torch

    named = json.loads((folder / "model_index.json").read_text()).get("_class_name")
    if named not in GUIDANCE:
        raise ValueError(f"its pipeline is {named}, not one of {', '.join(GUIDANCE)}")
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    pipeline = getattr(diffusers, named).from_pretrained(
        folder, use_safetensors=True, local_files_only=True, dtype=dtype
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def made(pipeline: Any, job: Job) -> bytes:
    """The GLB that a job asks for.  Raises Refused."""
    import torch

    renderer = pipeline.shap_e_renderer
    if not renderer.mesh_decoder.masks.any():
        raise Refused(
            "This model's files have no marching-cubes tables (shap_e_renderer.mesh_decoder.masks is all zero), which "
            "the published Shap-E checkpoint has: without them it makes no mesh.",
            param="model",
            code="unsupported_value",
        )
    asked = _asked(pipeline, job)
    grid = _bounded(job, "resolution", GRID, GRID_MIN, GRID_MAX)
    seed = job.body.get("seed")
    generator = torch.Generator("cpu").manual_seed(secrets.randbits(63) if seed is None else seed)
    with torch.no_grad():
        with _telling_steps(pipeline, job):
            latents = pipeline(**asked, generator=generator, output_type="latent").images
        with _telling_batches(renderer.mlp, job, -(-(grid**3) // BATCH)):
            mesh = _decoded(renderer, latents[0][None], pipeline.device, grid)
    return mesh.glb()


def _asked(pipeline: Any, job: Job) -> dict[str, Any]:
    """What the pipeline is called with.  Raises Refused."""
    name = type(pipeline).__name__
    steps = _bounded(job, "steps", STEPS, 1, STEPS_MAX)
    guidance = job.body.get("guidance", GUIDANCE[name])
    asked = {"num_inference_steps": steps, "guidance_scale": guidance}
    picture, prompt = job.body.get("image"), job.body.get("prompt")
    if name == "ShapEPipeline":
        if picture is not None:
            raise Refused("This model makes meshes from words, not from pictures.", param="image")
        return asked | {"prompt": prompt}
    if picture is None:
        raise Refused("This model makes meshes from pictures, not from words: give 'image'.", param="prompt")
    return asked | {"image": _picture(base64.b64decode(picture))}


def _picture(data: bytes) -> Any:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = PICTURE_MAX_PIXELS // 2  # twice of it is an error, less is a warning
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as e:
        raise Refused("The picture cannot be read, or is too large.", param="image") from e


def _bounded(job: Job, name: str, default: int, least: int, most: int) -> int:
    value: int = job.body.get(name, default)
    if not least <= value <= most:
        raise Refused(f"Invalid value for '{name}': expected a whole number from {least} to {most}.", param=name)
    return value


def _decoded(renderer: Any, latent: Any, device: Any, grid: int) -> Mesh:
    """Raises Refused when there is nothing to be seen."""

    def look(_module: Any, _given: Any, found: Any) -> None:
        # It would go on to ask for the colours of no vertices, and fail.
        if not len(found.faces):
            raise Refused("The model made nothing of this: its surface is empty. Another seed may help.")

    hook = renderer.mesh_decoder.register_forward_hook(look)
    try:
        found = renderer.decode_to_mesh(latent, device, grid_size=grid, query_batch_size=BATCH)
    finally:
        hook.remove()
    vertices = found.verts.float().cpu().numpy()
    faces = found.faces.cpu().numpy().astype(np.intp)
    colours = np.stack([found.vertex_channels[name].float().cpu().numpy() for name in "RGB"], -1).clip(0, 1)
    # Its z is up, and what it shows looks along y; in glTF y is up, and things look along z.
    upright = np.stack([-vertices[:, 0], vertices[:, 2], vertices[:, 1]], -1)
    return Mesh(upright, faces, colours).outwards().standing(HEIGHT_M)


@contextmanager
def _telling_steps(pipeline: Any, job: Job) -> Iterator[None]:
    """Meanwhile each step of denoising is told: the pipeline itself has no way to say it."""
    scheduler, done = pipeline.scheduler, count(1)
    step = scheduler.step

    def told(*args: Any, **kwargs: Any) -> Any:
        job.step(next(done), len(scheduler.timesteps))
        return step(*args, **kwargs)

    scheduler.step = told
    try:
        yield
    finally:
        scheduler.step = step


@contextmanager
def _telling_batches(network: Any, job: Job, batches: int) -> Iterator[None]:
    """Meanwhile each batch of points that the renderer is asked for is told."""
    done = count(1)

    def tell(*_: object) -> None:
        # The last ones ask for colours: as many as there are vertices, which nobody knows before.
        job.step(min(next(done), batches), batches, "meshing")

    hook = network.register_forward_pre_hook(tell)
    try:
        yield
    finally:
        hook.remove()
