"""How many requests that are over are remembered, and what of them."""

from unittest.mock import Mock

from compat.canonical.principal import Principal
from gateway.requests import KEPT, TENANTS_MAX, Requests, shown
from gateway.visit import Visit


def over(number: int, tenant: str) -> Visit:
    return Visit(
        request_id=f"{tenant}-{number}",
        method="POST",
        path="/",
        began=float(number),
        ended=number + 0.5,
        at=1e9 + number + 0.5,
        status=200,
        requested="m",
        principal=Principal(id="me", tenant=tenant),
        presence=Mock(),
        lost=[Mock()],
    )


def filled(tenants: int, each: int) -> Requests:
    requests = Requests(Mock(guests=[]))
    for number in range(each):
        for tenant in range(tenants):
            requests.keep(over(number, f"t{tenant}"))
    return requests


def test_each_tenant_has_its_last_ones() -> None:
    requests = filled(2, KEPT + 10)
    for tenant in ("t0", "t1"):
        kept = requests.of(tenant)
        assert [visit.request_id for visit in kept[:2]] == [f"{tenant}-{KEPT + 9}", f"{tenant}-{KEPT + 8}"]
        assert len(kept) == KEPT
        assert requests.find(tenant, f"{tenant}-9") is None


def test_tenants_that_have_asked_longest_ago_are_forgotten() -> None:
    requests = filled(TENANTS_MAX, 1)
    requests.keep(over(1, "t0"))
    requests.keep(over(1, "new"))
    assert len(requests.of("t0")) == 2
    assert requests.of("t1") == []
    assert len(requests.of("new")) == 1


def test_neither_connections_nor_backends_are_held() -> None:
    [kept] = filled(1, 1).of("t0")
    assert (kept.presence, kept.answered, kept.prices, kept.trace, kept.lost) == (None, None, None, None, [])
    told = shown(kept)
    assert (told.status, told.timing.total_s) == ("done", 0.5)
    assert (told.ended_at and told.ended_at.timestamp(), told.created_at.timestamp()) == (1e9, 1e9)
