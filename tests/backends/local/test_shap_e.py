"""Shap-E through diffusers' own pipelines, tiny and untrained: their code runs, only the weights say nothing.

With the tables of marching cubes, and a ball instead of what the network believes, a real mesh comes out.
"""

import io
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

import backends.local
from backends.local.studio import Cancelled, Refused
from tests.backends.local.tables import tables

pytestmark = [
    pytest.mark.skipif(
        find_spec("torch") is None or find_spec("diffusers") is None, reason="the extra `image` is not installed"
    ),
    # Diffusers' schedulers hand tensors to numpy in a way of yesterday.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
TOKENIZER = Path(backends.local.__file__).parent / "models" / "tiny-shapes" / "tokenizer"


class Job:
    """A job that nobody waits for: what is told is kept."""

    def __init__(self, gone_at: int | None = None, **body: Any) -> None:
        self.body = {"prompt": "a chair", "steps": 2, "resolution": 24, "seed": 1} | body
        self.told: list[tuple[int, int, str]] = []
        self._gone_at = gone_at

    def step(self, step: int, of: int, stage: str = "generating") -> None:
        if len(self.told) == self._gone_at:
            raise Cancelled
        self.told.append((step, of, stage))


def prior() -> Any:
    from diffusers import PriorTransformer

    return PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=16, num_embeddings=96,
        additional_embeddings=0, time_embed_act_fn="gelu", time_embed_dim=32, embedding_proj_dim=16,
        encoder_hid_proj_type=None, added_emb_type=None, clip_embed_dim=32,
    )  # fmt: skip


def renderer() -> Any:
    from diffusers.pipelines.shap_e import ShapERenderer

    return ShapERenderer(
        param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=16, d_hidden=8, n_output=12,
        background=(0.1, 0.1, 0.1),
    )  # fmt: skip


def scheduler() -> Any:
    from diffusers import HeunDiscreteScheduler

    return HeunDiscreteScheduler(
        beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=False,
        clip_sample=True, clip_sample_range=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From words, as diffusers writes it to disk."""
    import torch
    from diffusers import ShapEPipeline
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    words = CLIPTextConfig(
        vocab_size=1000, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=16, max_position_embeddings=77, bos_token_id=362, eos_token_id=363,
    )  # fmt: skip
    pipeline = ShapEPipeline(
        prior=prior(),
        text_encoder=CLIPTextModelWithProjection(words),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        scheduler=scheduler(),
        shap_e_renderer=renderer(),
    )
    path = tmp_path_factory.mktemp("shap-e")
    pipeline.save_pretrained(path)
    return path


@pytest.fixture
def pipeline(folder: Path) -> Any:
    from backends.local.studio.shap_e import load

    return load(folder, "cpu")


@pytest.fixture
def with_tables(pipeline: Any) -> Any:
    import torch

    cases, masks = tables()
    pipeline.shap_e_renderer.mesh_decoder.cases.copy_(torch.from_numpy(cases))
    pipeline.shap_e_renderer.mesh_decoder.masks.copy_(torch.from_numpy(masks))
    return pipeline


@pytest.fixture
def with_a_ball(with_tables: Any) -> Any:
    """Above the middle, z up; red where x is positive, blue where it is negative."""
    import torch
    from diffusers.pipelines.shap_e.renderer import MLPNeRFModelOutput

    class Ball(torch.nn.Module):  # type: ignore[misc]
        dtype = torch.float32

        def forward(self, *, position: Any, ts: Any, **_: Any) -> Any:
            far = (position - torch.tensor([0.0, 0.0, 0.3])).norm(dim=-1, keepdim=True)
            right = (position[..., :1] > 0).float()
            channels = torch.cat([right, torch.zeros_like(right), 1 - right], -1)
            return MLPNeRFModelOutput(density=far, signed_distance=0.5 - far, channels=channels, ts=ts)

    with_tables.shap_e_renderer.mlp = Ball()
    return with_tables


def made(pipeline: Any, job: Job) -> bytes:
    from backends.local.studio import shap_e

    return shap_e.made(pipeline, job)  # type: ignore[arg-type]


def test_without_the_tables_it_says_what_is_missing_before_any_work(pipeline: Any) -> None:
    job = Job()
    with pytest.raises(Refused, match="no marching-cubes tables"):
        made(pipeline, job)
    assert job.told == []


def test_words_become_a_mesh_that_stands_on_the_ground(with_a_ball: Any) -> None:
    job = Job()
    mesh: Any = trimesh.load_mesh(io.BytesIO(made(with_a_ball, job)), file_type="glb")
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.05)
    assert mesh.bounds[0][1] == pytest.approx(0, abs=1e-5)
    assert mesh.bounds[1][1] == pytest.approx(1.0)
    # Its left is our right: it looks the other way.
    colours, right = np.asarray(mesh.visual.vertex_colors), mesh.vertices[:, 0] > 0.1
    assert colours[right][:, 2].min() > 200 > 50 > colours[right][:, 0].max()
    denoised = [one for one in job.told if one[2] == "generating"]
    assert denoised == [(n + 1, len(denoised), "generating") for n in range(len(denoised))]
    assert {one[2] for one in job.told[len(denoised) :]} == {"meshing"}


def test_the_networks_own_field_goes_all_the_way_or_is_called_empty(with_tables: Any) -> None:
    """Untrained, it may see nothing anywhere."""
    try:
        glb = made(with_tables, Job())
    except Refused as e:
        assert "its surface is empty" in str(e)  # noqa: PT017 - either may be
    else:
        assert glb.startswith(b"glTF")


def test_a_field_without_a_surface_is_refused_in_words(with_a_ball: Any) -> None:
    inside = with_a_ball.shap_e_renderer.mlp.forward

    def nowhere(**given: Any) -> Any:
        out = inside(**given)
        out.signed_distance = out.signed_distance - 10
        return out

    with_a_ball.shap_e_renderer.mlp.forward = nowhere
    with pytest.raises(Refused, match="its surface is empty"):
        made(with_a_ball, Job())


def test_the_same_seed_draws_the_same_latents(with_tables: Any) -> None:
    import torch

    seen: list[Any] = []

    def noted(latent: Any, *_: Any, **__: Any) -> Any:
        seen.append(latent)
        raise Refused("That is enough.")

    with_tables.shap_e_renderer.decode_to_mesh = noted
    for seed in (1, 1, 2):
        with suppress(Refused):
            made(with_tables, Job(seed=seed, resolution=16))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("at", [0, 1, 5])
def test_it_stops_where_its_client_goes_and_works_again_after(with_a_ball: Any, at: int) -> None:
    with pytest.raises(Cancelled):
        made(with_a_ball, Job(gone_at=at))
    assert made(with_a_ball, Job())


@pytest.mark.parametrize(
    ("wrong", "param"), [({"steps": 999}, "steps"), ({"resolution": 300}, "resolution"), ({"image": "x"}, "image")]
)
def test_what_it_cannot_do_is_named(with_a_ball: Any, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        made(with_a_ball, Job(**wrong))
    assert refused.value.error["param"] == param


def test_another_pipeline_is_not_loaded() -> None:
    from backends.local.studio.shap_e import load

    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        load(TOKENIZER.parent, "cpu")


@pytest.fixture
def from_pictures(with_a_ball: Any) -> Any:
    from diffusers import ShapEImg2ImgPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    eyes = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    from diffusers import PriorTransformer

    seeing = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=16, num_embeddings=96,
        additional_embeddings=0, time_embed_act_fn="gelu", time_embed_dim=32, embedding_proj_dim=16,
        embedding_proj_norm_type="layer", encoder_hid_proj_type=None, added_emb_type=None, clip_embed_dim=32,
    )  # fmt: skip
    pipeline = ShapEImg2ImgPipeline(
        prior=seeing,
        image_encoder=CLIPVisionModel(eyes),
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_resize=True, do_center_crop=True
        ),
        scheduler=scheduler(),
        shap_e_renderer=with_a_ball.shap_e_renderer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_picture_becomes_a_mesh(from_pictures: Any) -> None:
    import base64

    drawn = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(drawn, "PNG")
    picture = base64.b64encode(drawn.getvalue()).decode()
    mesh: Any = trimesh.load_mesh(io.BytesIO(made(from_pictures, Job(image=picture, prompt=""))), file_type="glb")
    assert mesh.is_watertight
    with pytest.raises(Refused, match="not from words"):
        made(from_pictures, Job())
    with pytest.raises(Refused, match="cannot be read"):
        made(from_pictures, Job(image=base64.b64encode(b"\x89PNG no picture").decode()))
