"""/v1/keys: giving out API keys, and changing them.  Configured keys are listed too, but stay as the file has them."""

from typing import Any

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath

from compat.canonical.error import Conflict
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
from gateway.auth.keycard import ApiKey, NewApiKey, card, configured, new_card
from gateway.auth.keyform import KeyChanges, NewKey, Rotation
from gateway.auth.registrar import By
from gateway.house import Estate, House

_SCOPE = "admin"
_CONFIGURED = "config:"
"""Begins the place in a list that lies among the configured keys; the rest counts them."""
_new = msgspec.json.Decoder(NewKey)
_changes = msgspec.json.Decoder(KeyChanges)
_rotation = msgspec.json.Decoder(Rotation)


def routes(house: House) -> list[Any]:
    @post(
        "/v1/keys",
        opt={"scope": _SCOPE, "body": NewKey},
        status_code=201,
        summary="Create a key",
        description="Give out an API key.  The answer is the only place where the key itself is ever shown.",
    )
    async def create_key(request: Asked) -> NewApiKey:
        form = await decoded(request, _new)
        row, text = await house.archive.registrar.create(form, estate_of(request).backends, _by(request))
        return new_card(row, text)

    @get(
        "/v1/keys",
        opt={
            "scope": _SCOPE,
            "query": {
                "limit": f"Keys a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
                "tenant": "Only this tenant's.",
                "owner": "Only this user's.",
                "include_revoked": "`true` lists revoked ones as well.",
            },
        },
        summary="List keys",
        description="Every key that was given out, newest first, then those of the configuration file.",
    )
    async def list_keys(request: Asked) -> dict[str, Any]:
        limit, place = number(request, "limit", PAGE, PAGE_MAX, least=1), cursor_of(request) or ""
        tenant, owner = word(request, "tenant"), word(request, "owner")
        revoked = word(request, "include_revoked", ("true", "false")) == "true"
        cards: list[ApiKey] = []
        skip = 0
        if place.startswith(_CONFIGURED):
            skip = int(digits) if (digits := place.removeprefix(_CONFIGURED)[:9]).isdecimal() else 0
        else:
            rows = await house.archive.registrar.rows.page(
                limit + 1, place or None, tenant=tenant, owner=owner, revoked=revoked
            )
            cards = [card(row) for row in rows]
            if len(cards) > limit:
                return page(cards, limit, cards[limit - 1].id)
        fixed = _configured(estate_of(request), tenant, owner)
        taken = skip + limit - len(cards)
        cards += fixed[skip:taken]
        return page(cards, limit, f"{_CONFIGURED}{taken}" if taken < len(fixed) else None)

    @get(
        "/v1/keys/{key_id:str}",
        opt={"scope": _SCOPE},
        summary="Get a key",
        description="What a key may do, and when it was used last; never the key itself.",
    )
    async def get_key(request: Asked, key_id: FromPath[str]) -> ApiKey:
        if (fixed := _fixed(request, key_id)) is not None:
            return fixed
        return card(await house.archive.registrar.get(key_id))

    @patch(
        "/v1/keys/{key_id:str}",
        opt={"scope": _SCOPE, "body": KeyChanges},
        summary="Change a key",
        description="What is left out stays.  Takes effect at once; on other processes within a minute.",
    )
    async def change_key(request: Asked, key_id: FromPath[str]) -> ApiKey:
        _refuse_fixed(request, key_id)
        form = await decoded(request, _changes)
        return card(await house.archive.registrar.change(key_id, form, estate_of(request).backends, _by(request)))

    @post(
        "/v1/keys/{key_id:str}/rotate",
        opt={"scope": _SCOPE, "body": Rotation},
        status_code=200,
        summary="Rotate a key",
        description="Another key in the place of this one, with the same id and rights.  The old one is taken for "
        "`overlap_s` seconds more (a day; 0 ends it at once); one from an earlier rotation ends.",
    )
    async def rotate_key(request: Asked, key_id: FromPath[str]) -> NewApiKey:
        _refuse_fixed(request, key_id)
        form = await decoded(request, _rotation)
        row, text = await house.archive.registrar.rotate(key_id, form.overlap_s, _by(request))
        return new_card(row, text)

    @delete(
        "/v1/keys/{key_id:str}",
        opt={"scope": _SCOPE},
        status_code=200,
        summary="Revoke a key",
        description="End a key at once, and for good; on other processes within a minute.",
    )
    async def revoke_key(request: Asked, key_id: FromPath[str]) -> dict[str, Any]:
        _refuse_fixed(request, key_id)
        row = await house.archive.registrar.revoke(key_id, _by(request))
        return {"id": row.id, "object": "api_key", "revoked": True}

    return [create_key, list_keys, get_key, change_key, rotate_key, revoke_key]


def _by(request: Asked) -> By:
    visit, grant = visit_of(request), grant_of(request)
    return By(actor=grant.principal.id, key_id=grant.key_id, request_id=visit.request_id)


def _configured(estate: Estate, tenant: str | None = None, owner: str | None = None) -> list[ApiKey]:
    config = estate.config
    cards = [configured(key, config.limits.keys.get(key.name)) for key in config.auth.keys]
    return [one for one in cards if tenant in (None, one.tenant) and owner in (None, one.owner)]


def _fixed(request: Asked, id_: str) -> ApiKey | None:
    return next((one for one in _configured(estate_of(request)) if one.id == id_), None)


def _refuse_fixed(request: Asked, id_: str) -> None:
    if _fixed(request, id_) is not None:
        raise Conflict(f"The key '{id_}' stands in the configuration file: change it there, under auth.keys.")
