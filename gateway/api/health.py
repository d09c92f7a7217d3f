"""GET /health, /ready and /metrics: for supervisors, load balancers and Prometheus."""

from typing import Any

from litestar import Response, get, head

from backends.base import Probed
from compat.canonical.error import GatewayError
from gateway.api.resource import Asked, estate_of
from gateway.auth.guard import PUBLIC, admit
from gateway.house import Estate, House
from gateway.settings import LOOPBACK

_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""What proxies put into the requests they carry."""


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
        description="Per dependency, whether it would serve; 503 when the gateway would not.  Routes that are left "
        "alone are named where no key is needed, and to administrators.",
    )
    async def ready(request: Asked) -> Response[dict[str, Any]]:
        status, checks = await state(estate_of(request))
        if await administers(request):
            now = house.book.now()
            checks |= {f"route:{name}": trouble for name, trouble in house.book.troubled(now).items()}
        return Response({"status": status, "checks": checks}, status_code=200 if status == "ready" else 503)

    @head("/ready", opt={"scope": PUBLIC}, include_in_schema=False)
    async def ready_head(request: Asked) -> Response[None]:
        status, _ = await state(estate_of(request))
        return Response(None, status_code=200 if status == "ready" else 503)

    async def state(estate: Estate) -> tuple[str, dict[str, str]]:
        """In one word whether the gateway would serve, and of each dependency."""
        checks: dict[str, str] = {"database": "ok" if await house.archive.answers() else "unavailable"}
        # Without their store, requests that keep nothing are served all the same.
        checks["artifacts"] = await house.cabinet.artifacts.store.ready() or "ok"
        for name, backend in estate.backends.items():
            trouble = await backend.ready() if isinstance(backend, Probed) else None
            checks[f"backend:{name}"] = trouble or "ok"
        # One backend in trouble leaves the others serving: it is shown, and does not take the gateway out.
        backends = [state for name, state in checks.items() if name.startswith("backend:")]
        usable = not backends or "ok" in backends
        ok = usable and checks["database"] == "ok"
        return "draining" if house.draining else "ready" if ok else "unavailable", checks

    async def administers(request: Asked) -> bool:
        # The names of routes are clients' own words, which are not everybody's business.
        if estate_of(request).config.auth.mode == "local":
            return True
        try:
            await admit(request.scope, "admin")
        except GatewayError:
            return False
        return True

    @get(
        "/metrics",
        opt={"scope": PUBLIC},
        media_type="text/plain",
        summary="Metrics",
        description="Prometheus text format, or OpenMetrics with exemplars where the request accepts that.  "
        "Needs the scope `admin` when the gateway is not on loopback, and when a proxy carried the request.",
    )
    async def metrics(request: Asked) -> Response[bytes]:
        # Behind a proxy on this machine everybody is on loopback.  In local mode the scope is anybody's.
        carried = any(name in request.headers for name in _FORWARDED)
        if carried or estate_of(request).config.server.host not in LOOPBACK:
            await admit(request.scope, "admin")
        house.ledger.account()
        text, kind = house.metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    return [health, health_head, ready, ready_head, metrics]
