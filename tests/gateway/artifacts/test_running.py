"""A gateway that keeps its artifacts in a bucket, as its operator sees it."""

import io
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from tests import s3
from tests.process import gateway


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


PICTURE = picture()


def config(section: dict[str, Any]) -> dict[str, Any]:
    return {"backends": {"fake": {"kind": "fake"}}, "artifacts": section}


def test_it_says_what_its_store_is_short_of_and_serves_all_the_same(s3_server: str, tmp_path: Path) -> None:
    section = s3.settings(s3_server) | {"url": "s3://not-made-yet/prefix"}
    with gateway(tmp_path, config(section)) as running, httpx2.Client(base_url=running.url, timeout=30) as http:
        answer = http.get("/ready")
        assert (answer.status_code, answer.json()["checks"]["artifacts"]) == (200, "no such bucket")
        put = http.post("/v1/artifacts", content=PICTURE, headers={"content-type": "image/png"})
        assert (put.status_code, put.json()["error"]["code"]) == (502, "artifact_bucket_missing")
        said = running.wait_for("artifact_store_failed")
        assert said["reason"] == "there is no such bucket"
        assert s3.SECRET not in "".join(running.lines)


def test_what_it_keeps_outlives_a_kill_and_is_counted(s3_server: str, tmp_path: Path) -> None:
    section = s3.settings(s3_server, "tests/running")
    with gateway(tmp_path, config(section)) as running:
        put = httpx2.post(f"{running.url}/v1/artifacts", content=PICTURE, headers={"content-type": "image/png"})
        assert put.status_code == 201, put.text
        running.process.kill()
        running.process.wait(10)
    with gateway(tmp_path, config(section)) as running, httpx2.Client(base_url=running.url, timeout=30) as http:
        assert http.get("/ready").json()["checks"]["artifacts"] == "ok"
        there = http.get(f"/v1/artifacts/{put.json()['id']}/content")
        assert (there.status_code, there.content) == (200, PICTURE)
        assert "pluggably_artifacts_removed_total" in http.get("/metrics").text
        assert s3.SECRET not in "".join(running.lines)
