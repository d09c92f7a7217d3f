"""A certificate authority, and the configuration of a gateway before the provider."""

from typing import Any

import pytest

from tests.deployment.certificates import Authority

APP_KEY = "app-key-canary-deployed-41f0"


def config(provider_url: str, server: dict[str, Any] | None = None) -> dict[str, Any]:
    """One gateway that takes keys, before the provider (`up`) and a backend of its own (`fake`)."""
    return {
        "server": server or {},
        "auth": {"mode": "api_key", "keys": [{"name": "app", "key": APP_KEY, "scopes": ["inference", "models:read"]}]},
        "backends": {
            "up": {"kind": "openai", "base_url": provider_url, "api_key": "upstream-key-canary-2d"},
            "fake": {"kind": "fake"},
        },
        "models": {"auto": {"routes": ["up/answer"]}, "once-*": {"routes": ["up/*"], "retries": 0}},
    }


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))
