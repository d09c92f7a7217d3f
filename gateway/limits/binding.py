"""Which limits bind a request: the key's, the user's, the tenant's and the model's, each an account of its own."""

import hashlib
from fnmatch import fnmatchcase

from msgspec import Struct

from gateway.auth.principal import Grant
from gateway.settings import Limit, Limits

ID_MAX = 200
"""Characters of an account's id: the width of its column."""
NANO = 1_000_000_000
"""Billionths of a dollar in one."""


class Account(Struct, frozen=True, kw_only=True):
    """Something that is limited as one, and by what."""

    id: str
    kind: str
    """key, user, tenant or model."""
    name: str
    """What its owner calls it."""
    tenant: str
    """Empty for a model's, which is everybody's."""
    owner: str
    limit: Limit

    @property
    def whose(self) -> str:
        """Names it in a refusal, which may go to somebody who must not know more."""
        return _WHOSE[self.kind]

    @property
    def counted(self) -> bool:
        """Whether requests or tokens are limited, not only money."""
        limit = self.limit
        return (limit.requests_per_minute, limit.tokens_per_minute, limit.concurrent) != (None, None, None)

    def budget(self, period: str) -> int | None:
        """What may be spent a `day` or a `month`, in nano-USD."""
        dollars = self.limit.budget_usd_per_day if period == "day" else self.limit.budget_usd_per_month
        return None if dollars is None else round(dollars * NANO)


_WHOSE = {
    "key": "This API key",
    "user": "This user",
    "tenant": "This tenant",
    "model": "Everybody together, with this model,",
}
_NONE = Limit()


def nothing(limits: Limits) -> bool:
    """Whether a configuration limits nobody."""
    named = (limits.keys, limits.users, limits.tenants, limits.models)
    return limits.default == _NONE and not any(named)


def bindings(limits: Limits, grant: Grant, requested: str = "", route: str = "") -> tuple[Account, ...]:
    """The accounts that a request is entered in.

    requested: the name asked for.  route: BACKEND/MODEL of what comes first.  Both empty: without the models'.
    """
    user, tenant = grant.principal.id, grant.principal.tenant
    found: list[Account] = []

    def add(kind: str, id_: str, name: str, limit: Limit | None) -> None:
        if limit is not None and limit != _NONE:
            ours = kind != "model"
            found.append(
                Account(
                    id=_fitting(id_),
                    kind=kind,
                    name=name,
                    tenant=tenant if ours else "",
                    owner=user if kind in ("key", "user") else "",
                    limit=limit,
                )
            )

    if grant.key_id is not None:
        own = grant.limit or limits.keys.get(grant.key_id) or limits.default
        add("key", f"key:{grant.key_id}", grant.key_id, own)
    else:
        # What the user does with keys is not in this account, but in theirs.
        add("user", f"token:{tenant}/{user}", user, grant.limit or limits.default)
    add("user", f"user:{tenant}/{user}", user, limits.users.get(user) or limits.users.get("*"))
    add("tenant", f"tenant:{tenant}", tenant, limits.tenants.get(tenant) or limits.tenants.get("*"))
    for pattern, limit in limits.models.items():
        if any(name and fnmatchcase(name, pattern) for name in (requested, route)):
            add("model", f"model:{pattern}", pattern, limit)
    return tuple(found)


def _fitting(id_: str) -> str:
    """An id as long as its column, and without what databases refuse in a text."""
    if len(id_) <= ID_MAX and id_.isprintable():
        return id_
    digest = hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{''.join(filter(str.isprintable, id_[:100]))}#{digest}"
