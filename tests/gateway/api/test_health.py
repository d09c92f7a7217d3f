"""GET /health and /ready."""

import httpx2


def test_health_says_ok(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_probe_may_ask_for_the_head_alone(anonymous: httpx2.Client) -> None:
    for path in ("/health", "/ready"):
        answer = anonymous.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["x-request-id"]
        assert set(anonymous.get("/openapi.json").json()["paths"][path]) == {"get"}


def test_ready_tells_of_each_dependency(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert {"database", "backend:up", "backend:fake", "backend:dead"} <= set(answer.json()["checks"])


def test_metrics_are_what_prometheus_reads_and_the_document_says(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    said = anonymous.get("/openapi.json").json()["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert [media.partition(";")[0] for media in said] == ["text/plain"]
