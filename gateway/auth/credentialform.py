"""What a user gives as a credential, with refusals that name the field and the cure."""

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from backends.token import GOOGLE_TOKENS, WORD, OAuthToken, ServiceAccount, signed
from compat.canonical.error import Forbidden, InvalidRequest
from gateway.account import Secret
from gateway.auth.endpoint import endpoint
from gateway.auth.principal import Grant
from gateway.checks import nearest
from gateway.settings import BackendEntry

SECRET_MIN, SECRET_MAX = 8, 4096
OWNER_MAX = 64
_KINDS = ("api_key", "service_account", "oauth_token")
_ADDRESSED = frozenset({"anthropic", "openai"})
"""Kinds of backend whose address may be a user's own."""
_SIGNED_IN = frozenset({"openai"})
"""Kinds of backend that may be Google's."""


_word = re.compile(WORD + "*").fullmatch


class NewOAuthToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    access_token: str
    refresh_token: str | None = None
    token_url: str | None = None
    """Where the refresh token is turned into an access token; needed with one."""
    client_id: str | None = None
    client_secret: str | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class NewCredential(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of `api_key`, `service_account` and `oauth_token`."""

    backend: str
    api_key: str | None = None
    service_account: ServiceAccount | None = None
    """Google's key file."""
    oauth_token: NewOAuthToken | None = None
    base_url: str | None = None
    """An endpoint of the user's own; null is the backend's."""


async def secret_of(form: NewCredential, configured: Mapping[str, BackendEntry], grant: Grant) -> Secret:
    """What is to be sealed.  Raises InvalidRequest and Forbidden."""
    entry = _entry(form.backend, configured, grant)
    if len(grant.principal.id) > OWNER_MAX:
        raise Forbidden(f"Users with names of more than {OWNER_MAX} characters cannot keep credentials.")
    given = [name for name in _KINDS if getattr(form, name) is not None]
    if len(given) != 1:
        found = "none" if not given else " and ".join(given)
        raise InvalidRequest(
            f"Give exactly one of {', '.join(_KINDS)}; found {found}.",
            param=given[1] if given else "api_key",
            code="invalid_value" if given else "missing_required_parameter",
        )
    allowed = entry.terms.user_endpoints
    if form.base_url is not None:
        if entry.kind not in _ADDRESSED:
            raise InvalidRequest(
                f"Backend '{form.backend}' has an address of its own; use a backend of kind openai for an endpoint.",
                param="base_url",
                code="unsupported_value",
            )
        endpoint(form.base_url, allowed, "base_url")
    if form.api_key is not None:
        _check_secret(form.api_key, "api_key")
        return Secret(api_key=form.api_key)
    if form.service_account is not None:
        await _check_account(form.service_account, form.backend, entry)
        return Secret(service_account=form.service_account)
    assert form.oauth_token is not None
    return Secret(oauth_token=_token(form.oauth_token, allowed))


def _entry(backend: str, configured: Mapping[str, BackendEntry], grant: Grant) -> BackendEntry:
    entry = configured.get(backend)
    takers = [name for name, one in configured.items() if hasattr(one.settings, "api_key")]
    if entry is None or not grant.may_use(backend):
        raise InvalidRequest(
            f"Invalid value for 'backend': '{backend[:64]}' is unknown{nearest(backend[:64], takers)}.",
            param="backend",
            code="invalid_value",
        )
    if backend not in takers:
        raise InvalidRequest(
            f"Backend '{backend}' takes no provider key{nearest(backend, takers)}.",
            param="backend",
            code="unsupported_value",
        )
    if entry.terms.own_keys == "refused":
        raise Forbidden(
            f"Backend '{backend}' does not take users' own keys here: its own_keys is 'refused'.",
            code="credential_refused",
        )
    return entry


def _check_secret(text: str, param: str, *, least: int = SECRET_MIN, most: int = SECRET_MAX) -> None:
    if not least <= len(text) <= most or not _word(text):
        raise InvalidRequest(
            f"Invalid value for '{param}': expected {least} to {most} printable ASCII characters without spaces, "
            "quotes and backslashes.",
            param=param,
            code="invalid_value",
        )


async def _check_account(account: ServiceAccount, backend: str, entry: BackendEntry) -> None:
    at = "service_account"
    if entry.kind not in _SIGNED_IN:
        raise InvalidRequest(
            f"Backend '{backend}' takes an api_key or an oauth_token, but no service account.",
            param=at,
            code="unsupported_value",
        )
    if account.type != "service_account":
        raise InvalidRequest(
            f"Invalid value for '{at}.type': expected 'service_account', the key file of one.",
            param=f"{at}.type",
            code="invalid_value",
        )
    for name in ("client_email", "private_key_id"):
        if (text := getattr(account, name)) is not None:
            _check_secret(text, f"{at}.{name}", least=1, most=320)
    if (
        account.token_uri != GOOGLE_TOKENS
        and endpoint(account.token_uri, entry.terms.user_endpoints, f"{at}.token_uri").public_only
    ):
        raise InvalidRequest(
            f"Invalid value for '{at}.token_uri': expected {GOOGLE_TOKENS}; others are allowed by the backend's "
            "user_endpoints only.",
            param=f"{at}.token_uri",
            code="invalid_value",
        )
    try:
        await asyncio.to_thread(signed, account, time.time())
    except ValueError as e:
        # Not in its words: they may quote the key.
        raise InvalidRequest(
            f"Invalid value for '{at}.private_key': expected one private RSA key in PEM, of 2048 to 4096 bits.",
            param=f"{at}.private_key",
            code="invalid_value",
        ) from e


def _token(form: NewOAuthToken, allowed: tuple[str, ...]) -> OAuthToken:
    for name in ("access_token", "refresh_token", "client_secret", "client_id"):
        if (text := getattr(form, name)) is not None:
            least = 1 if name == "client_id" else SECRET_MIN
            _check_secret(text, f"oauth_token.{name}", least=least, most=2 * SECRET_MAX)
    if (form.refresh_token is None) != (form.token_url is None):
        lacking = "refresh_token" if form.refresh_token is None else "token_url"
        raise InvalidRequest(
            f"Missing required parameter: 'oauth_token.{lacking}'; refresh_token and token_url are needed together.",
            param=f"oauth_token.{lacking}",
            code="missing_required_parameter",
        )
    if form.token_url is not None:
        endpoint(form.token_url, allowed, "oauth_token.token_url")
    fields = msgspec.structs.asdict(form)
    fields["expires_at"] = form.expires_at.timestamp() if form.expires_at is not None else None
    return OAuthToken(**fields)
