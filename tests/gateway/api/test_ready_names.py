"""/ready is for everybody; the names of troubled routes, which clients make up, are for administrators."""

from pathlib import Path

from tests.gateway.conftest import ADMIN_KEY, APP_KEY, AUTH, speaking
from tests.http import CHAT, chat
from tests.process import gateway


def test_troubled_routes_are_named_to_administrators_only(tmp_path: Path) -> None:
    dead = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}
    config = {"auth": AUTH, "backends": {"dead": dead}, "breaker": {"failures": 1}}
    with gateway(tmp_path, config) as running, speaking(running, {"authorization": f"Bearer {APP_KEY}"}) as app:
        app.post(CHAT, json=chat("dead/a-clients-own-words"))
        assert "a-clients-own-words" not in app.get("/ready").text
        assert app.get("/ready").json()["checks"]["backend:dead"] == "ok"
        with speaking(running, {"authorization": f"Bearer {ADMIN_KEY}"}) as admin:
            assert "route:dead/a-clients-own-words" in admin.get("/ready").json()["checks"]
