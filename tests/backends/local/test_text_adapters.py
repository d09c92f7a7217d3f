"""LoRA adapters of the real model, made of random numbers: on by default, set by request, or the engine is named."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from gguf import GGUFWriter

from backends.local import LocalBackend, Settings, connect
from backends.local.engine import Engine
from backends.local.settings import Adapter, ModelSettings
from backends.ports import Ports
from compat.canonical.error import RequestError
from tests.backends.local.asking import chat, choices_of
from tests.backends.local.bench import smollm
from tests.backends.local.conftest import together

WIDTH, RANK = 576, 4
"""Of SmolLM2-135M: what goes into and comes out of its queries."""


def write_adapter(path: Path) -> None:
    writer, random = GGUFWriter(path, "llama"), np.random.default_rng(1)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 64.0)
    for layer in range(0, 30, 3):
        for end in ("a", "b"):
            shape = (RANK, WIDTH) if end == "a" else (WIDTH, RANK)
            name = f"blk.{layer}.attn_q.weight.lora_{end}"
            writer.add_tensor(name, random.normal(0, 0.5, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def adapted(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalBackend]:
    path = tmp_path_factory.mktemp("adapted") / "adapter.gguf"
    write_adapter(path)
    own = ModelSettings(adapters=(Adapter(path=str(path)),))
    settings = Settings(engine=engine.name, threads=1, context_max=512, models={"smol": own})  # type: ignore[arg-type]
    local = smollm()
    backend = connect("local", settings, Ports(catalogue=lambda: {"smol": local}))
    yield backend
    await backend.aclose()


@together
async def test_a_request_sets_how_strong_an_adapter_is(adapted: LocalBackend) -> None:
    async def said(**fields: object) -> str:
        [choice] = await choices_of(adapted, chat("Say hello.", max_tokens=8) | fields)
        content: str = choice["message"]["content"]
        return content

    usual = await said()
    if not adapted.prefills:
        with pytest.raises(RequestError, match=r"^Engine llama_cpp_python ") as refused:
            await said(lora=[{"id": 0, "scale": 0}])
        assert (refused.value.status, refused.value.param) == (400, "lora")
        return
    without = await said(lora=[{"id": 0, "scale": 0}])
    assert without != usual == await said(lora=[{"id": 0, "scale": 1.0}])
    with pytest.raises(RequestError) as refused:
        await said(lora=[{"id": 1, "scale": 1}])
    assert (refused.value.status, refused.value.param) == (400, "lora[0].id")
