"""The configuration: what it takes, and what it says when it cannot."""

import json
from math import inf
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from backends.local.settings import Settings
from gateway.config import load, schema
from gateway.estate import build
from gateway.settings import Config, ConfigError
from tests.process import ROOT

KEY = {"name": "app", "key": "0123456789abcdef"}
JWT = {"issuer": "https://issuer.example", "audience": "gateway"}
API_KEY = {"mode": "api_key", "keys": [KEY]}


def loaded(folder: Path, tree: Any, environ: dict[str, str] | None = None) -> Config:
    path = folder / "c.yaml"
    path.write_text(tree) if isinstance(tree, str) else path.write_bytes(msgspec.yaml.encode(tree))
    return load(path, environ or {})


def entry(**fields: Any) -> dict[str, Any]:
    """A configuration with one entry under `models`."""
    return {"models": {"smart": {"routes": ["local/x"], **fields}}}


def local(**fields: Any) -> dict[str, Any]:
    """A configuration with one backend, of local models."""
    return {"backends": {"local": {"kind": "local", **fields}}}


def test_the_defaults_need_no_file_and_no_environment() -> None:
    config = load(None, {"HOME": "/nonexistent"})
    assert (config.server.host, config.server.port, config.auth.mode) == ("127.0.0.1", 8080, "local")
    assert list(config.backends) == ["local"]
    auto = config.models["auto"].routes
    assert isinstance(auto, dict)
    assert auto["text"] == ("local/smollm2-135m-instruct",)
    assert auto["embedding"] == auto["rerank"] == ("local/all-minilm-l6-v2",)


def test_the_example_shows_the_defaults_and_connects() -> None:
    config = load(ROOT / "config.example.yaml", {})
    build(config)
    assert config.server == load(None, {}).server
    assert config.telemetry == load(None, {}).telemetry


def test_the_example_names_every_key() -> None:
    text = (ROOT / "config.example.yaml").read_text()
    for struct in schema()["$defs"].values():
        for name in struct["properties"]:
            assert f"{name}:" in text, name


def test_the_schema_takes_the_example() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    tree = msgspec.yaml.decode((ROOT / "config.example.yaml").read_bytes())
    json.dumps(tree)
    for section in ("server", "telemetry", "database"):
        jsonschema.validate({section: tree[section]}, schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"sever": {}}, schema())


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"sever": {}}, ["sever: unknown key", "did you mean 'server'"]),
        ({"server": {"prot": 1}}, ["server.prot", "did you mean 'port'"]),
        ({"server": {"tls": {"cret": "x"}}}, ["server.tls.cret", "did you mean 'cert'"]),
        ({"models": {"smart": {"route": ["fake/x"]}}}, ["models.smart.route", "did you mean 'routes'"]),
        (
            {"models": {"smart": {"routes": ["local/x"], "timeouts": {"idle": 3}}}},
            ["models.smart.timeouts.idle", "did you mean 'idle_s'"],
        ),
        ({"auth": {"keys": [KEY | {"scope": "x"}]}}, ["auth.keys", "scope", "did you mean 'scopes'"]),
        ({"backends": {"up": {"kind": "openai", "api_kye": "x"}}}, ["backends.up.api_kye", "did you mean 'api_key'"]),
        ({"backends": {"up": {"kind": "fake", "word": []}}}, ["backends.up.word", "did you mean 'words'"]),
        ({"backends": {"up": {"kind": "opnai"}}}, ["backends.up.kind", "did you mean 'openai'"]),
        ({"backends": {"up": {}}}, ["backends.up.kind: missing"]),
        ({"backends": {"a/b": {"kind": "fake"}}}, ["backends.a/b"]),
        ({"backends": {"up": {"kind": "openai", "preset": "nobody"}}}, ["backends.up.preset", "nobody", "groq"]),
        ({"backends": {"up": {"kind": "openai", "preset": "groq"}}}, ["backends.up.api_key", "GROQ_API_KEY"]),
        ({"backends": {"up": {"kind": "openai", "preset": "azure", "api_key": "x"}}}, ["backends.up.base_url"]),
        ({"backends": {"up": {"kind": "openai", "base_url": "ftp://x"}}}, ["backends.up.base_url", "http"]),
        (local(models={"x": {"contextmax": 2}}), ["backends.local.models.x.contextmax", "did you mean 'context_max'"]),
        (local(models={"a": {}, "b": {"adapters": [{"pth": 1}]}}), ["backends.local.models.b.adapters[0].pth", "path"]),
        (local(models={"x": {"kv_type": "q5"}}), ["backends.local.models.x.kv_type: 'q5'", "f16, q8_0, q4_0"]),
        (local(engine="ollama"), ["backends.local.engine: 'ollama'", "xllamacpp, llama_server, llama_cpp_python"]),
        (local(idle_unload_s="nver"), ["backends.local.idle_unload_s", "did you mean 'never'", "a number"]),
        ({"backends": {"up": {"kind": "fake", "price": "fre"}}}, ["backends.up.price", "'free'", "free, paid, local"]),
        (
            {"models": {"m": {"routes": []}}, "server": {"tls": {"cert": "x"}}},
            ["server.tls: cert", "\nmodels.m.routes: empty"],
        ),
        ({"models": {"m": {"routes": ["nowhere/x"]}}}, ["models.m.routes[0]", "nowhere"]),
        ({"models": {"m": {"routes": ["loacl/x"]}}}, ["did you mean 'local'"]),
        ({"models": {"m": {"routes": ["local"]}}}, ["models.m.routes[0]", "BACKEND/MODEL"]),
        ({"models": {"m": {"routes": []}}}, ["models.m.routes: empty"]),
        ({"prices": {"gpt-4o": {"input": 1}}}, ["prices.gpt-4o", "BACKEND/MODEL"]),
        ({"prices": {"up/*": {"cached_input": 1}}}, ["prices.up/*: names no price", "request"]),
        ({"prices": {"up/*": {"inptu": 1}}}, ["prices.up/*.inptu", "did you mean 'input'"]),
        (entry(strategy="latenci"), ["models.smart.strategy", "did you mean 'latency'"]),
        (entry(strategy="fastest"), ["models.smart.strategy", "'fastest' is unknown", "least_busy"]),
        (entry(stream_guard="of"), ["models.smart.stream_guard", "did you mean 'off'"]),
        (entry(routes={"txt": ["local/x"]}), ["models.smart.routes.txt: unknown key", "did you mean 'text'"]),
        (entry(routes={"text": ["local/x"], "image": []}), ["models.smart.routes.image: empty"]),
        (
            entry(routes={"text": ["local/x"], "image": [{"to": "local/y", "wieght": 2}]}),
            ["models.smart.routes.image[0].wieght", "did you mean 'weight'"],
        ),
        (entry(routes=[{"to": "local/x", "weight": -1}]), ["models.smart.routes[0].weight", ">= 0"]),
        (entry(routes=[{"to": "local/x", "context_length": 0}]), ["models.smart.routes[0].context_length", ">= 1"]),
        (entry(retries=-1), ["models.smart.retries", ">= 0"]),
        ({"breaker": {"cooldown": 1}}, ["breaker.cooldown: unknown key", "did you mean 'cooldown_s'"]),
        ({"breaker": {"faliures": 1}}, ["breaker.faliures", "did you mean 'failures'"]),
        ({"limits": {"requests_per_minute": 1}}, ["limits.requests_per_minute", "default"]),
        (
            {"limits": {"default": {"request_per_minute": 1}}},
            ["limits.default.request_per_minute", "did you mean 'requests_per_minute'"],
        ),
        ({"limits": {"store": "valkey"}}, ["limits.store", "memory"]),
        ({"telemetry": {"otlp_endpoint": "collector:4318"}}, ["telemetry.otlp_endpoint", "http://"]),
        ({"backends": {"up": {"kind": "fake", "queue_mx": 1}}}, ["backends.up.queue_mx", "did you mean 'queue_max'"]),
        ({"backends": {"up": {"kind": "fake", "price": "cheap"}}}, ["backends.up.price", "cheap"]),
        ({"backends": {"up": 3}}, ["backends.up", "object"]),
        ({"models": {"m": {}}}, ["models", "routes"]),
        ({"server": {"host": "0.0.0.0"}}, ["server.host", "auth.mode", "api_key"]),
        ({"server": {"host": "::"}}, ["server.host", "auth.mode"]),
        ({"auth": {"mode": "jwt"}}, ["auth.jwt", "issuer"]),
        ({"auth": {"jwt": {"issuer": "https://x", "audence": "y"}}}, ["auth.jwt.audence", "did you mean 'audience'"]),
        ({"auth": {"keys": [KEY | {"scopes": ["inferense"]}]}}, ["auth.keys[0].scopes", "did you mean 'inference'"]),
        ({"auth": {"keys": [KEY | {"tenant": "a/b"}]}}, ["auth.keys[0].tenant"]),
        ({"secrets": {"master_key": "short"}}, ["secrets.master_key", "32"]),
        ({"secrets": {"key_pepper": ""}}, ["secrets.key_pepper", "32"]),
        ({"limits": {"store": "redis://x"}}, ["limits.store", "valkey://"]),
        ({"limits": {"users": {"*": {"concurent": 3}}}}, ["limits.users.*", "did you mean 'concurrent'"]),
        ({"prices": {"up/*": {"imput": 3}}}, ["prices.up/*", "did you mean 'input'"]),
        ({"models": {"m": {"routes": {}}}}, ["models.m.routes", "empty"]),
        ({"auth": {"mode": "api_key", "keys": [{"name": "app", "key": "short"}]}}, ["auth.keys[0].key", "16"]),
        ({"auth": {"mode": "api_key", "keys": [KEY, KEY]}}, ["auth.keys[1].name", "twice"]),
        ({"auth": {"mode": "api_key", "keys": [KEY, KEY | {"name": "b"}]}}, ["auth.keys[1].key", "'app' has the same"]),
        ({"auth": {"keys": [KEY | {"name": ""}]}}, ["auth.keys[0].name", "64"]),
        ({"auth": {"keys": [KEY | {"name": "n" * 65}]}}, ["auth.keys[0].name", "64"]),
        ({"auth": {"keys": [KEY | {"name": "a\x07b"}]}}, ["auth.keys[0].name", "printable"]),
        ({"auth": {"keys": [KEY | {"key": "\u00fcmlaut-0123456789"}]}}, ["auth.keys[0].key", "ASCII"]),
        ({"auth": {"keys": [KEY | {"key": " blank-0123456789 "}]}}, ["auth.keys[0].key", "blanks"]),
        ({"auth": {"keys": [KEY | {"key": "tab\t-0123456789abc"}]}}, ["auth.keys[0].key", "printable"]),
        ({"auth": {"keys": [KEY | {"backends": ["loacl"]}]}}, ["auth.keys[0].backends[0]", "did you mean 'local'"]),
        (
            {"auth": {"mode": "api_key+jwt", "keys": [KEY | {"key": "eyJhbGciOi.aaaaaaaa.bbbbbbbb"}], "jwt": JWT}},
            ["auth.keys[0].key", "token"],
        ),
        ({"auth": {"mode": "api_key", "keys": [KEY | {"key": "eyJhbGciOi.aaaaaaaa.bbbbbbbb"}], "jwt": JWT}}, []),
        *(({"database": {"url": url}}, ["database.url", "sqlite+aiosqlite:///", "postgresql+asyncpg://"]) for url in (
            "mysql://x", "postgresql://x", "postgresql+psycopg2://x", "sqlite:///x", "sqlite+aiosqlite://x", "",
            "nonsense", "postgresql+asyncpg://h:port/x", "postgresql+asyncpg://[::1/x",
        )),
        *(({"database": {"url": url}}, []) for url in (
            "sqlite+aiosqlite:///x.db", "postgresql+asyncpg://u:p%40[#/?:@[::1]:5432/x?ssl=require",
            "postgresql+asyncpg:///x?host=/run/postgresql", "postgresql+asyncpg://h", "postgresql+asyncpg://u@h/x",
        )),
        *(({"backends": {"up": {"kind": kind, "base_url": url, "api_key": "x" * 20}}}, ["backends.up.base_url", "http"])
            for kind in ("openai", "anthropic", "huggingface")
            for url in ("http://[bad", "http://", "http://x:port", "http://x:99999", "http://a b", "https://h/\x01")),
        ({"auth": {"mode": "open"}}, ["auth.mode"]),
        ({"server": {"port": "many"}}, ["server.port"]),
        ({"server": {"tls": {"cert": "x.pem"}}}, ["server.tls"]),
        ({"telemetry": {"log_level": "loud"}}, ["telemetry.log_level"]),
        ({"backends": {"up": {"api_key": "${NO_SUCH_VAR}"}}}, ["backends.up.api_key", "NO_SUCH_VAR", ":-"]),
        ({"auth": {"keys": [{"name": "a", "key": "${NO_SUCH_VAR}"}]}}, ["auth.keys[0].key", "NO_SUCH_VAR"]),
        ("[1, 2]", ["mapping"]),
        ("a: [", ["not YAML"]),
        ("7: x", ["7"]),
        ("models:\n  7: {routes: [local/x]}\n", []),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_path_and_cure(tmp_path: Path, tree: Any, words: list[str]) -> None:
    if words == []:
        build(loaded(tmp_path, tree))
        return
    with pytest.raises(ConfigError) as wrong:
        build(loaded(tmp_path, tree))
    for word in words:
        assert word in str(wrong.value)
    assert "0123456789abcdef" not in str(wrong.value)


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        ("server.port", (-1, 65536), (0, 65535)),
        ("server.drain_s", (-1,), (0, 0.5)),
        ("server.body_limit_bytes", (0, -1), (1,)),
        ("server.header_timeout_s", (0, -1), (0.1,)),
        ("server.body_timeout_s", (0, -1), (0.1,)),
        ("server.write_timeout_s", (0, -1), (0.1,)),
        ("server.keep_alive_s", (0, -1), (0.1,)),
        ("breaker.failures", (0, -1), (1,)),
        ("breaker.failure_rate", (-0.1, 1.1), (0, 1)),
        ("breaker.window_s", (0, -1), (0.1,)),
        ("breaker.window_requests", (0, -1), (1,)),
        ("breaker.cooldown_s", (0, -1), (0.1,)),
        ("breaker.cooldown_max_s", (0, -1), (10,)),
        ("limits.default.requests_per_minute", (0, -1), (1, None)),
        ("limits.default.tokens_per_minute", (0, -1), (1, None)),
        ("limits.default.concurrent", (0, -1), (1, None)),
        ("models.smart.timeouts.connect_s", (0, -1), (0.1,)),
        ("models.smart.timeouts.first_token_s", (0, -1), (0.1,)),
        ("models.smart.timeouts.idle_s", (0, -1), (0.1,)),
        ("models.smart.timeouts.total_s", (0, -1, ".nan"), (0.1,)),
        ("backends.local.concurrent", (0, -1), (1, None)),
        ("backends.fake.queue_max", (-1,), (0,)),
    ],
)
def test_numbers_have_bounds(tmp_path: Path, path: str, wrong: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    def tree(value: Any) -> dict[str, Any]:
        whole: dict[str, Any] = entry() | {"backends": {"local": {"kind": "local"}, "fake": {"kind": "fake"}}}
        *sections, name = path.split(".")
        node = whole
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
        return whole

    for value in wrong:
        with pytest.raises(ConfigError) as refused:
            loaded(tmp_path, tree(value))
        assert str(refused.value).startswith(f"{path}: Expected"), refused.value
    for value in right:
        loaded(tmp_path, tree(value))


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 600.0),
        ({"idle_unload_s": "never"}, inf),
        ({"idle_unload_s": None}, inf),
        ({"models": {"x": {"idle_unload_s": "never"}}}, inf),
        ({"idle_unload_s": "never", "models": {"x": {"idle_unload_s": 5}}}, 5.0),
        ({"idle_unload_s": 7, "models": {"x": {"idle_unload_s": None}}}, 7.0),
    ],
)
def test_a_model_may_be_idle_for_ever(tmp_path: Path, fields: dict[str, Any], seconds: float) -> None:
    settings = loaded(tmp_path, local(**fields)).backends["local"].settings
    assert isinstance(settings, Settings)
    assert settings.idle_s("x") == seconds


def test_a_cool_down_does_not_begin_beyond_its_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"breaker\.cooldown_max_s"):
        loaded(tmp_path, {"breaker": {"cooldown_s": 10, "cooldown_max_s": 5}})


def test_variables_are_filled_in(tmp_path: Path) -> None:
    tree = {
        "auth": API_KEY | {"keys": [{"name": "${NAME:-app}", "key": "pre-${SECRET}-post"}]},
        "server": {"port": "${PORT:-1234}"},
    }
    config = loaded(tmp_path, tree, {"SECRET": "0123456789abcdef"})
    assert config.auth.keys[0].key == "pre-0123456789abcdef-post"
    assert config.auth.keys[0].name == "app"
    assert config.server.port == 1234


def test_variables_may_stand_bare_in_a_mapping_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "auth: {mode: api_key, keys: [{name: app, key: ${APP_KEY}, scopes: [inference]}]}   # ${NOT_READ}\n"
        "backends:\n  openai: {kind: openai, api_key: ${OPENAI_API_KEY:-sk-one, two: three}}\n"
        'server: {port: ${PORT}, host: "${HOST:-127.0.0.1}"}\n'
    )
    config = load(path, {"APP_KEY": "0123456789abcdef: x, {y}", "PORT": "1234"})
    assert config.auth.keys[0].key == "0123456789abcdef: x, {y}", "a value does not break out of its place"
    assert config.auth.keys[0].scopes == ("inference",)
    assert config.server.port == 1234


def test_a_value_may_be_a_files_contents(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    tree = {"auth": API_KEY | {"keys": [{"name": "app", "key": f"${{file:{tmp_path / 'key'}}}"}]}}
    assert loaded(tmp_path, tree).auth.keys[0].key == "0123456789abcdef"
    (tmp_path / "key").write_bytes(b"0123456789abcdef\r\n")
    assert loaded(tmp_path, tree).auth.keys[0].key == "0123456789abcdef"
    (tmp_path / "key").unlink()
    with pytest.raises(ConfigError, match=r"auth\.keys\[0\]\.key: the file .* cannot be read: No such file"):
        loaded(tmp_path, tree)


@pytest.mark.parametrize(
    ("environ", "port", "level"),
    [
        ({"PLUGGABLY__SERVER__PORT": "99"}, 99, "info"),
        ({"PLUGGABLY__server__port": "99", "PLUGGABLY__TELEMETRY__LOG_LEVEL": "debug"}, 99, "debug"),
        ({"PLUGGABLY__TELEMETRY": '{"log_level": "error"}'}, 7, "error"),
    ],
)
def test_the_environment_goes_before_the_file(tmp_path: Path, environ: dict[str, str], port: int, level: str) -> None:
    config = loaded(tmp_path, {"server": {"port": 7}}, environ)
    assert (config.server.port, config.telemetry.log_level) == (port, level)


@pytest.mark.parametrize(
    "name",
    ["PLUGGABLY__SERVER__PROT", "PLUGGABLY__NOTHING", "PLUGGABLY__SERVER__PORT__X", "PLUGGABLY__", "PLUGGABLY____"],
)
def test_an_unknown_name_in_the_environment_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        loaded(tmp_path, {"server": {"port": 7}}, {name: "1"})


def test_the_environment_overrides_names_that_are_numbers(tmp_path: Path) -> None:
    config = loaded(tmp_path, "models:\n  7: {routes: [local/x]}\n", {"PLUGGABLY__MODELS__SMART__ROUTES": "[local/y]"})
    assert set(config.models) >= {"7", "smart"}


def test_the_data_folder_holds_the_database(tmp_path: Path) -> None:
    assert (
        load(None, {"PLUGGABLY__DATA_DIR": str(tmp_path)}).database_url == f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    )


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.yaml", {})
