"""GET /health and /ready."""

import httpx2


def test_health_says_ok(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_tells_of_each_dependency(anonymous: httpx2.Client) -> None:
    answer = anonymous.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert {"database", "backend:up", "backend:fake", "backend:dead"} <= set(answer.json()["checks"])
