"""When the database cannot be asked, what needs it says so and can be tried again; what does not goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.gateway.conftest import ADMIN_KEY, AUTH, speaking
from tests.http import CHAT, chat, error_of
from tests.process import gateway

RESPONSE = {"model": "fake/fake", "input": "Hello."}


@pytest.mark.parametrize(
    ("table", "method", "path", "body"),
    [
        ("keys", "GET", "/v1/keys", None),
        ("keys", "POST", "/v1/keys", {"name": "one"}),
        ("turns", "GET", "/v1/responses/resp_1", None),
        ("turns", "POST", "/v1/responses", RESPONSE),
        ("usage", "GET", "/v1/usage", None),
        ("audit", "POST", "/v1/keys", {"name": "unaudited"}),
    ],
)
def test_what_needs_it_is_a_503_that_may_be_tried_again(
    tmp_path: Path, table: str, method: str, path: str, body: dict[str, str] | None
) -> None:
    with gateway(tmp_path, {"auth": AUTH, "backends": {"fake": {"kind": "fake"}}}) as running:
        with closing(sqlite3.connect(tmp_path / "data" / "gateway.db", timeout=10)) as database:
            database.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
        with speaking(running, {"authorization": f"Bearer {ADMIN_KEY}"}) as admin:
            refused = admin.request(method, path, json=body)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "database_unavailable"), refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert "elsewhere" not in refused.text
            assert table not in error_of(refused)["message"]
            assert admin.post(CHAT, json=chat("fake/fake")).status_code == 200
        if table == "audit":
            with closing(sqlite3.connect(tmp_path / "data" / "gateway.db", timeout=10)) as database:
                (made,) = database.execute("SELECT count(*) FROM keys WHERE name = 'unaudited'").fetchone()
            assert made == 0, "an act that cannot be written down is not done"
