"""GET /health, /ready and /metrics: for supervisors, load balancers and Prometheus."""

from typing import Any

from litestar import Request, Response, get, head

from backends.base import Probed
from gateway.auth.guard import PUBLIC, admit
from gateway.house import Estate, House
from gateway.settings import LOOPBACK

_METRICS = "text/plain; version=0.0.4"
"""Litestar adds the charset."""


def routes(house: House) -> list[Any]:
    @get("/health", opt={"scope": PUBLIC}, summary="Alive", description="Answers as long as the process does.")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @head("/health", opt={"scope": PUBLIC}, include_in_schema=False)
    async def health_head() -> None:
        pass

    @get(
        "/ready",
        opt={"scope": PUBLIC},
        summary="Ready",
        description="Per dependency, whether it would serve; 503 when the gateway would not.",
    )
    async def ready(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        status, checks = await state(request.scope["estate"])  # type: ignore[typeddict-item]
        return Response({"status": status, "checks": checks}, status_code=200 if status == "ready" else 503)

    @head("/ready", opt={"scope": PUBLIC}, include_in_schema=False)
    async def ready_head(request: Request[Any, Any, Any]) -> Response[None]:
        status, _ = await state(request.scope["estate"])  # type: ignore[typeddict-item]
        return Response(None, status_code=200 if status == "ready" else 503)

    async def state(estate: Estate) -> tuple[str, dict[str, str]]:
        """In one word whether the gateway would serve, and of each dependency."""
        checks: dict[str, str] = {"database": "ok" if await house.database_answers() else "unavailable"}
        for name, backend in estate.backends.items():
            trouble = await backend.ready() if isinstance(backend, Probed) else None
            checks[f"backend:{name}"] = trouble or "ok"
        checks |= {f"route:{name}": state for name, state in house.book.troubled(house.book.now()).items()}
        # One backend in trouble leaves the others serving: it is shown, and does not take the gateway out.
        backends = [state for name, state in checks.items() if name.startswith("backend:")]
        usable = not backends or "ok" in backends
        ok = usable and checks["database"] == "ok"
        return "draining" if house.draining else "ready" if ok else "unavailable", checks

    @get(
        "/metrics",
        opt={"scope": PUBLIC},
        media_type=_METRICS,
        summary="Metrics",
        description="Prometheus text format.  Needs the scope `admin` when the gateway is not on loopback.",
    )
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        estate: Estate = request.scope["estate"]  # type: ignore[typeddict-item]
        if estate.config.server.host not in LOOPBACK:
            await admit(request.scope, "admin")
        house.ledger.account()
        return Response(house.metrics.render(), media_type=_METRICS)

    return [health, health_head, ready, ready_head, metrics]
