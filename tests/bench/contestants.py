"""Who is measured: every contestant one process (nginx: one worker) in front of the same upstream.

A line of STARTERS is all a new contestant needs.  Each is set up as its makers advise for production,
with the same duty where it can have one: LiteLLM and the gateway check a key and route by model name.
"""

import json
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tests.bench import provision
from tests.bench.process import Process, free_port, module
from tests.bench.workload import CLAUDE, EMBEDDER, INSTRUCT, OPENAI

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
PROVIDER_KEY = "sk-upstream-0123456789abcdef01234567"
START_S = 120.0
ROUTES = {
    OPENAI: ("up", "gpt-4o-mini"),
    INSTRUCT: ("up", "gpt-3.5-turbo-instruct"),
    EMBEDDER: ("up", "text-embedding-3-small"),
    CLAUDE: ("claude", "claude-sonnet-4-5-20250929"),
}
"""Backend and its model behind every name a client uses."""


class Contestant(Struct):
    name: str
    what: str
    """Name and version as the report shows it."""
    port: int
    process: Process
    ready_s: float
    """From exec to the first 200."""
    chats_only: bool = False
    """Not worth measuring in the other lanes."""


Starter = Callable[[str, int, Path], Contestant]
"""Takes its name, the upstream's port and an empty folder of its own."""


def _started(
    name: str, what: str, command: list[str | Path], port: int, ready: str, folder: Path, env: dict[str, str]
) -> Contestant:
    process = Process(command, folder / "log", env)
    try:
        return Contestant(name, what, port, process, process.await_ready(port, ready, START_S))
    except BaseException:
        process.stop()
        raise


def start_gateway(name: str, upstream: int, folder: Path) -> Contestant:
    """Everything a production gateway does: keys, routing, metering, database, JSON log to a file, metrics."""
    root = f"http://127.0.0.1:{upstream}"
    return serve_gateway(
        name,
        {
            "auth": {"mode": "api_key", "keys": [{"name": "bench", "key": KEY, "scopes": ["inference"]}]},
            "backends": {
                "up": {"kind": "openai", "base_url": f"{root}/v1", "api_key": PROVIDER_KEY},
                "claude": {"kind": "anthropic", "base_url": root, "api_key": PROVIDER_KEY},
            },
            "models": {model: {"routes": ["/".join(route)]} for model, route in ROUTES.items()},
            "telemetry": {"log_level": "info", "log_format": "json"},
        },
        folder,
    )


def serve_gateway(name: str, config: dict[str, object], folder: Path) -> Contestant:
    file = folder / "config.yaml"
    # JSON is YAML.
    file.write_text(json.dumps({"data_dir": str(folder / "data"), **config}, indent=1))
    port = free_port()
    command: list[str | Path] = [*module("gateway", "serve", "--config", str(file), "--port", str(port))]
    return _started(name, "gateway, everything on", command, port, "/health", folder, {})


def start_litellm(name: str, upstream: int, folder: Path) -> Contestant:
    """Settings of https://docs.litellm.ai/docs/proxy/prod, without the database they add."""
    binary, version = provision.litellm()
    root = f"http://127.0.0.1:{upstream}"
    makers = {
        OPENAI: ("openai", f"{root}/v1"),
        INSTRUCT: ("text-completion-openai", f"{root}/v1"),
        EMBEDDER: ("openai", f"{root}/v1"),
        CLAUDE: ("anthropic", root),
    }
    config = {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {"model": f"{maker}/{ROUTES[model][1]}", "api_base": base, "api_key": PROVIDER_KEY},
            }
            for model, (maker, base) in makers.items()
        ],
        "litellm_settings": {
            "set_verbose": False,
            "json_logs": True,
            "telemetry": False,
            "num_retries": 0,
            # Without this it asks an OpenAI model for a Response, when a client speaks Anthropic.
            "use_chat_completions_url_for_anthropic_messages": True,
        },
        "general_settings": {"master_key": KEY},
        "router_settings": {"disable_cooldowns": True},
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(config, indent=1))
    port = free_port()
    command: list[str | Path] = [
        binary,
        "--config",
        file,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    if name == "litellm-rust":
        env["LITELLM_RUST"] = "true"
    what = f"LiteLLM {version}" + (", LITELLM_RUST" if name == "litellm-rust" else "")
    command += ["--telemetry", "False"]
    return _started(name, what, command, port, "/health/liveliness", folder, env)


def start_bare(name: str, upstream: int, folder: Path) -> Contestant:
    port = free_port()
    base = f"http://127.0.0.1:{upstream}"
    command: list[str | Path] = [*module("tests.bench.bare", "--port", str(port), "--base", base)]
    return _started(name, "aiohttp + uvicorn, bytes only", command, port, "/v1/models", folder, {})


def start_nginx(name: str, upstream: int, folder: Path) -> Contestant:
    binary = provision.nginx()
    port = free_port()
    spools = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{ worker_connections 2048; }}
http {{
{spools}
access_log off; tcp_nodelay on; keepalive_requests 10000000; client_body_buffer_size 64k;
upstream provider {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 10000000; }}
server {{
  listen 127.0.0.1:{port};
  location / {{
    proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
  }}
}}
}}
"""
    )
    command: list[str | Path] = [binary, "-e", "stderr", "-p", folder, "-c", file]
    nginx = _started(name, "nginx, one worker", command, port, "/v1/models", folder, {})
    nginx.chats_only = True  # bytes are bytes to it, whatever the lane
    return nginx


STARTERS: dict[str, Starter] = {
    "gateway": start_gateway,
    "litellm": start_litellm,
    "litellm-rust": start_litellm,
    "bare": start_bare,
    "nginx": start_nginx,
}
DEFAULT = ("gateway", "bare", "litellm", "nginx")
"""The gateway and what it is held against stand side by side, so that one moment's noise meets both."""
