"""Every example, run as its reader would run it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import embedded
from tests.backends.scenes import TABLE, describing
from tests.hub import HubRepo, hub
from tests.process import ROOT, Gateway, gateway
from tests.provider import Provider

EXAMPLES = ROOT / "examples"

SAYS = {
    "artifacts.py": [
        r"\Aart_[0-9a-f]{32}: model/gltf-binary, \d+ bytes",
        r"-- can be had as glb, obj, ply, stl, png, webp, jpeg\n-- as a picture: image/webp, [1-9]\d* bytes",
        r"-- its first bytes: b'glTF' \(bytes 0-3/\d+\)\n-- by its link, until 20\d\d-.*: [1-9]\d* bytes",
        r"-- deleted: True",
    ],
    "conversation.py": [r"\A\s*\S", r"-- conv_\w+: user, assistant, user, assistant\n-- deleted: True"],
    "curl.sh": [
        r'"object":"chat\.completion"',
        r"data: \[DONE\]",
        r'"id":"local/smollm2-135m-instruct"',
        r'"code":"model_not_found".*\nstatus 404',
        r'"object":"generation"',
    ],
    "embeddings.py": [
        r"\AA man is eating food\.\n +0\.[6-9]\d  Someone is having a meal\.",
        r" -?0\.[01]\d  A plane",
        r"-- all-minilm-l6-v2, 384 numbers each, [1-9]\d* tokens",
    ],
    "image.py": [r"\Apreview 1: [1-9]\d* characters\npreview 2: ", r"-- picture\.png: a red circle"],
    "keys_and_usage.py": [
        r"\Akey_[0-9a-f]{32} may ask for auto until 20\d\d-",
        r"-- local/smollm2-135m-instruct: [1-9]\d* requests, [1-9]\d* tokens, \$0\.000000",
        r"-- revoked: True",
    ],
    "langchain_chat.py": [r"\A\s*\S", r"-- smollm2-135m-instruct (stop|length)\n\s*\S"],
    "langchain_structured.py": [
        r"Review\(sentiment='(positive|mixed|negative)', stars=[1-5], recommends=(True|False)\)"
    ],
    "langchain_tools.py": [r"answer: \s*\S"],
    "mesh.py": [
        r"\Aa red chair: chair\.glb \(\d+ bytes\) and its poster chair\.png",
        r"-- \d+ vertices, \d+ triangles, closed\n-- 0\.4\d x 0\.90 x 0\.4\d m",
        r"-- by local/tiny-3d",
    ],
    "native_generate.py": [r"\A\s*\S", r"-- local/smollm2-135m-instruct, configured as 'auto'", r"[1-9]\d* tokens"],
    "native_stream.py": [r"-- local/smollm2-135m-instruct answers\n\s*\S", r"-- (stop|length), [1-9]\d* tokens"],
    "node/openai.mjs": [r"\A\s*\S", r"-- smollm2-135m-instruct, [1-9]\d* tokens\n\s*\S"],
    "openai_async.py": [r"Paris: \s*\S", r"Tokyo: \s*\S", r"Cairo: \s*\S"],
    "openai_stream.py": [r"\A\s*\S", r"-- [1-9]\d* tokens in, [1-9]\d* out"],
    "openai_sync.py": [r"\A\s*\S", r"-- smollm2-135m-instruct, [1-9]\d* tokens"],
    "openai_tools.py": [r"answer: \s*\S"],
    "rerank.py": [
        r"\A +0\.[6-9]\d  Paris has been the capital",
        r"-- local/all-minilm-l6-v2, by embedding-similarity",
    ],
    "respond_async.py": [
        r"\A\S+: done\n-- model/gltf-binary, [1-9]\d* bytes: http\S+/content\n",
        r"-- called off: (cancelled|running|done|too late)",
    ],
    "sessions.py": [r"\A\s*\S", r"Ada", r"-- Fruits instead: 4 messages, open\n-- .+: 4 messages, open"],
    "storage.py": [r"\A\d+ bytes of models, [1-9]\d* free", r"-- a cleanup would remove \d+ things, \d+ bytes"],
    "schema.py": [
        r"\Atemperature +How freely .*\[number; 0\.0 to 2\.0; default 0\.2;",
        r"max_tokens .*1 to 2147483647",
        r"\n\s*\S",
    ],
    "scene.py": [r"\ANo model here builds scenes\.", r"kind: scene"],
}
"""What each example prints, in this order, when the embedded model answers."""
WRITES = {
    "image.py": ("a red circle on a white background", "picture.png"),
    "mesh.py": ("a red chair", "chair.glb"),
}
"""What those are given that write a file; it lands in the test's own folder."""


def files() -> set[str]:
    programs = (path for ending in ("py", "sh", "mjs") for path in EXAMPLES.rglob(f"*.{ending}"))
    return {str(path.relative_to(EXAMPLES)) for path in programs if not {"node_modules", "training"} & {*path.parts}}


def run(example: str, url: str, *arguments: str, folder: Path | None = None) -> str:
    """What an example prints; it must end well and without complaints."""
    program = {".py": [sys.executable, "-W", "error"], ".sh": ["bash"], ".mjs": ["node"]}[Path(example).suffix]
    done = subprocess.run(
        [*program, str(EXAMPLES / example), *arguments],
        env={**os.environ, "PLUGGABLY_URL": url, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        cwd=folder,
    )
    assert done.returncode == 0, f"{example} failed:\n{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="session")
def node_modules() -> None:
    """What the Node example imports, installed once from its lock."""
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    if not (EXAMPLES / "node" / "node_modules" / "openai").exists():
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            cwd=EXAMPLES / "node",
            check=True,
            timeout=90,
        )


@pytest.mark.parametrize("example", sorted(SAYS))
def test_an_example_runs_against_the_embedded_model(
    example: str, local_gateway: Gateway, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if example.endswith(".mjs"):
        request.getfixturevalue("node_modules")
    writes = WRITES.get(example)
    said = run(example, local_gateway.url, *(writes or ()), folder=tmp_path if writes else None)
    assert writes is None or (tmp_path / writes[-1]).stat().st_size > 1000
    for pattern in SAYS[example]:
        found = re.search(pattern, said)
        assert found, f"{example} did not print {pattern!r} where it should:\n{said}"
        said = said[found.end() :]


def test_an_example_that_is_refused_says_why(local_gateway: Gateway, tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, str(EXAMPLES / "mesh.py"), "a dragon", "dragon.glb"],
        env={**os.environ, "PLUGGABLY_URL": local_gateway.url},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        cwd=tmp_path,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("This model cannot make that.")
    assert "Traceback" not in refused.stderr


def test_the_openai_tools_example_calls_a_tool_when_the_model_does(tool_gateway: Gateway) -> None:
    said = run("openai_tools.py", tool_gateway.url)
    assert 'called get_weather({"city": "Lisbon"}) -> It is 21 degrees and sunny in Lisbon.' in said
    assert "answer: The tool says: It is 21 degrees and sunny in Lisbon." in said


def test_the_langchain_tools_example_calls_a_tool_when_the_model_does(tool_gateway: Gateway) -> None:
    said = run("langchain_tools.py", tool_gateway.url)
    assert "called add({'a': 19, 'b': 23}) -> 42" in said
    assert "answer: The tool says: 42" in said


def test_the_download_example_brings_a_model_and_asks_it(tmp_path: Path) -> None:
    shipped = Path(embedded.models("local", tmp_path)["smollm2-135m-instruct"].path)
    about = {"total": 134_515_008, "architecture": "llama", "context_length": 8192}
    repo = HubRepo(
        "acme/Tiny-GGUF",
        {"tiny-Q4_1.gguf": shipped.read_bytes()},
        tags=["gguf"],
        pipeline_tag="text-generation",
        gguf=about,
    )
    with hub() as there, gateway(tmp_path, {"hub": {"endpoint": there.url}}) as running:
        there.add(repo)
        said = run("download.py", running.url, "tiny")
    assert said.startswith("acme/Tiny-GGUF becomes local/tiny-q4_1\n")
    assert f"done: ready {shipped.stat().st_size} of {shipped.stat().st_size} bytes" in said
    assert said.endswith("-- tiny-q4_1\n")


def test_the_scene_example_writes_a_mesh(upstream: Provider, tmp_path: Path) -> None:
    upstream.scripts["artist"] = describing(TABLE)
    backends = {"up": {"kind": "openai", "base_url": upstream.url}, "scene": {"kind": "scene", "model": "up/artist"}}
    with gateway(tmp_path, {"backends": backends, "models": {}}) as running:
        said = run("scene.py", running.url, "a table", str(tmp_path / "table.glb"))
    assert re.match(r"a table: \d+ triangles, 1\.20 x 0\.74 x 0\.70 m, watertight: True\n-- built from solids", said)
    assert (tmp_path / "table.glb").read_bytes().startswith(b"glTF")


def test_every_example_is_run() -> None:
    assert files() == {*SAYS, "download.py"}


def test_the_readme_lists_every_example() -> None:
    listed = re.findall(r"^\| \[`([^`]+)`\]\(\1\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted([*SAYS, "download.py"])


def test_the_lock_of_the_node_example_names_no_registry() -> None:
    assert "resolved" not in (EXAMPLES / "node" / "package-lock.json").read_text()
