"""A model that its makers have cut into parts, as large ones are: asked for by any of them, fetched and run as one."""

import time
from pathlib import Path

import httpx2
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from gateway import embedded
from tests.hub import HubRepo, hub
from tests.process import gateway


def cut(whole: str, folder: Path) -> dict[str, bytes]:
    """A model's file in parts, as llama.cpp's own tool cuts it."""
    source = GGUFReader(whole)
    writer = GGUFWriter(folder / "tiny.gguf", "llama", split_max_tensors=150)
    for field in source.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        inside = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inside)
    for tensor in source.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {f"Q4_1/{part.name}": part.read_bytes() for part in sorted(folder.iterdir())}


def test_a_model_in_parts_is_fetched_and_run_as_one(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    parts = cut(embedded.models("local", tmp_path)["smollm2-135m-instruct"].path, tmp_path / "cut")
    assert len(parts) == 2
    with hub() as there, gateway(tmp_path, {"hub": {"endpoint": there.url}}) as running:
        there.add(HubRepo("acme/Split-GGUF", parts, tags=["gguf"], pipeline_tag="text-generation"))
        with httpx2.Client(base_url=running.url, timeout=30) as http:
            job = http.post("/v1/models/download", json={"repo": "acme/Split-GGUF", "file": list(parts)[1]}).json()
            while (job := http.get(f"/v1/jobs/{job['id']}").json())["status"] in ("queued", "running"):
                time.sleep(0.05)
            assert (job["status"], job["target"], job["result"]["files"]) == ("done", "local/tiny", list(parts))
            model = http.get("/v1/models/local/tiny").json()
            assert (model["size_bytes"], model["parameters"]) == (sum(map(len, parts.values())), 134_515_008)
            asked = {"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": "Say hello."}]}
            answer = http.post("/v1/chat/completions", json=asked | {"temperature": 0})
            assert answer.json()["choices"][0]["message"]["content"].startswith("Hello")
