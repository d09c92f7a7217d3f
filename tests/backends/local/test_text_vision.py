"""Pictures on real engines, through a projector of random numbers: the model looks, whatever it makes of it."""

import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace
from PIL import Image

from backends.local import LocalBackend, Settings, connect
from backends.local.engine import Engine
from backends.ports import Ports
from compat.canonical.error import RequestError
from compat.canonical.event import TextDelta
from tests.backends.local.asking import chat, choices_of, events_of
from tests.backends.local.bench import smollm
from tests.backends.local.conftest import together
from tests.backends.local.projector import write_projector


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeing(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalBackend]:
    """A backend whose model has a projector."""
    path = tmp_path_factory.mktemp("seeing") / "mmproj.gguf"
    write_projector(path)
    smol = smollm()
    local = replace(smol, projector=str(path), model=replace(smol.model, capabilities=("vision",)))
    settings = Settings(engine=engine.name, threads=1, n_batch=64, context_max=1024)  # type: ignore[arg-type]
    backend = connect("local", settings, Ports(catalogue=lambda: {"smol": local}))
    yield backend
    await backend.aclose()


def shown(url: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return chat(messages=[{"role": "user", "content": parts}], max_tokens=4)


@pytest.fixture(scope="module")
def picture() -> str:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


@together
async def test_a_picture_reaches_the_model_or_the_engine_is_named(seeing: LocalBackend, picture: str) -> None:
    if not seeing.prefills:
        with pytest.raises(RequestError, match=r"^Engine llama_cpp_python ") as refused:
            await choices_of(seeing, shown(picture))
        assert (refused.value.status, refused.value.param) == (400, "messages[0].content")
        return
    [choice] = await choices_of(seeing, shown(picture))
    assert choice["message"]["content"]
    assert [event for event in await events_of(seeing, shown(picture)) if isinstance(event, TextDelta)]


@together
@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,iVBORw0KGgo=", "https://example.com/a.png", "data:application/pdf;base64,iVBORw0KGgo="],
    ids=["broken", "elsewhere", "no picture"],
)
async def test_what_is_no_picture_is_the_clients_fault(seeing: LocalBackend, url: str) -> None:
    with pytest.raises(RequestError) as refused:
        await choices_of(seeing, shown(url))
    assert refused.value.status == 400
    assert (refused.value.param or "").startswith("messages")
