"""/v1/credentials: users' own provider keys.  They go in and are used; nobody reads them again."""

from datetime import datetime
from typing import Any, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import Struct

from compat.canonical.error import NotFound
from gateway.api.generation import SCOPE
from gateway.api.resource import (
    PAGE,
    PAGE_MAX,
    Asked,
    cursor_of,
    decoded,
    estate_of,
    grant_of,
    number,
    page,
    visit_of,
    word,
)
from gateway.auth.credentialform import NewCredential, secret_of
from gateway.auth.keycard import moment
from gateway.db.audit import Act
from gateway.db.credentials import Credential as Row
from gateway.db.credentials import Draft
from gateway.house import House

_new = msgspec.json.Decoder(NewCredential)


class Credential(Struct, frozen=True, kw_only=True):
    """A user's own provider key, as far as it may be shown."""

    id: str
    object: Literal["credential"] = "credential"
    backend: str
    kind: str
    base_url: str | None
    status: str
    """unused, accepted or rejected by the provider, or unreadable."""
    tenant: str
    user: str
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None


def routes(house: House) -> list[Any]:
    @post(
        "/v1/credentials",
        opt={"scope": SCOPE, "body": NewCredential},
        status_code=201,
        summary="Bring your own key",
        description="Keep a provider key of your own for a backend: your requests to it are made with this key, nobody "
        "else's are.  Replaces the one you have for it (200).  It is sealed, and never shown again.",
    )
    async def put_credential(request: Asked) -> Response[Credential]:
        rows, accounts = house.archive.credentials, house.archive.accounts
        form = await decoded(request, _new, may_hold_credentials=True)
        grant = grant_of(request)
        secret = await secret_of(form, estate_of(request).config.backends, grant)
        who = grant.principal

        def act(id_: str, fresh: bool) -> Act:
            return _act(request, "create" if fresh else "replace", id_, who.tenant, form.backend, secret.kind)

        row, fresh = await rows.put(
            Draft(
                tenant=who.tenant,
                owner=who.id,
                backend=form.backend,
                kind=secret.kind,
                base_url=form.base_url,
                seal=lambda bond: accounts.seal(secret, bond),
                act=act,
            )
        )
        accounts.changed(row)
        return Response(_card(row), status_code=201 if fresh else 200)

    @get(
        "/v1/credentials",
        opt={
            "scope": SCOPE,
            "query": {
                "limit": f"Credentials a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
                "tenant": "Only this tenant's; for administrators.",
                "user": "Only this user's; for administrators.",
            },
        },
        summary="List your own keys",
        description="The provider keys you brought, newest first, without the keys.  Administrators see everybody's.",
    )
    async def list_credentials(request: Asked) -> dict[str, Any]:
        rows, accounts = house.archive.credentials, house.archive.accounts
        limit, place = number(request, "limit", PAGE, PAGE_MAX, least=1), cursor_of(request)
        tenant, user = word(request, "tenant"), word(request, "user")
        who = grant_of(request).principal
        if "admin" not in who.scopes:
            tenant, user = who.tenant, who.id
        before = None if place is None else place.replace("\0", "")
        found = await rows.page(limit + 1, before=before, tenant=tenant, owner=user)
        cards = [_card(accounts.current(row)) for row in found[:limit]]
        return page(cards, limit, cards[-1].id if len(found) > limit else None)

    @get(
        "/v1/credentials/{credential_id:str}",
        opt={"scope": SCOPE},
        summary="Get one of your own keys",
        description="When it was given and used, and what the provider thought of it; never the key.",
    )
    async def get_credential(request: Asked, credential_id: FromPath[str]) -> Credential:
        accounts = house.archive.accounts
        return _card(accounts.current(await _found(house, request, credential_id)))

    @delete(
        "/v1/credentials/{credential_id:str}",
        opt={"scope": SCOPE},
        status_code=200,
        summary="Delete one of your own keys",
        description="Requests under way finish with it; the next ones are made without.  On other processes within a "
        "minute.",
    )
    async def delete_credential(request: Asked, credential_id: FromPath[str]) -> dict[str, Any]:
        rows, accounts = house.archive.credentials, house.archive.accounts
        row = await _found(house, request, credential_id)
        act = _act(request, "delete", row.id, row.tenant, row.backend, row.kind)
        if not await rows.delete(row.id, act):
            raise _absent(row.id)
        accounts.changed(row)
        return {"id": row.id, "object": "credential", "deleted": True}

    return [put_credential, list_credentials, get_credential, delete_credential]


async def _found(house: House, request: Asked, id_: str) -> Row:
    """A credential that whoever asks may know of: their own, or any for an administrator."""
    rows = house.archive.credentials
    who = grant_of(request).principal
    row = await rows.get(id_) if id_.isprintable() and len(id_) <= 40 else None
    if row is None or ((row.tenant, row.owner) != (who.tenant, who.id) and "admin" not in who.scopes):
        raise _absent(id_)
    return row


def _act(request: Asked, verb: str, id_: str, tenant: str, backend: str, kind: str) -> Act:
    grant = grant_of(request)
    by = {} if grant.key_id is None else {"by_key": grant.key_id}
    return Act(
        actor=grant.principal.id,
        action=f"credential.{verb}",
        target=id_,
        tenant=tenant,
        request_id=visit_of(request).request_id,
        detail={"backend": backend, "kind": kind, **by},
    )


def _absent(id_: str) -> NotFound:
    return NotFound(f"The credential '{id_[:100]}' does not exist. GET /v1/credentials lists yours.")


def _card(row: Row) -> Credential:
    return Credential(
        id=row.id,
        backend=row.backend,
        kind=row.kind,
        base_url=row.base_url,
        status=row.status,
        tenant=row.tenant,
        user=row.owner,
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
        last_used_at=None if row.last_used_at is None else moment(row.last_used_at),
    )
