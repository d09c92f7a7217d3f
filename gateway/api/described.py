"""The answers that handlers write as plain objects, as structs: what the OpenAPI document says of them.

They are made by nobody; `tests/generated` holds real answers to them.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gateway.api.audit import AuditEvent
from gateway.api.credentials import Credential
from gateway.auth.keycard import ApiKey
from gateway.schema.bodies import REFS

JsonObject = dict[str, Any]


class Page(Struct, kw_only=True):
    """What all lists have."""

    object: Literal["list"]
    next_cursor: str | None
    """For the page after this one; null on the last."""


class ApiKeyList(Page, kw_only=True):
    data: list[ApiKey]


class ApiKeyRevoked(Struct):
    id: str
    object: Literal["api_key"]
    revoked: Literal[True]


class CredentialList(Page, kw_only=True):
    data: list[Credential]


class CredentialDeleted(Struct):
    id: str
    object: Literal["credential"]
    deleted: Literal[True]


class AuditList(Page, kw_only=True):
    data: list[AuditEvent]


class LimitStanding(Struct, kw_only=True):
    """A limit or a budget that binds the caller."""

    object: Literal["limit"]
    of: str
    """`key`, `user`, `tenant` or `model`"""
    name: str
    unit: str
    """`requests_per_minute`, `tokens_per_minute`, `concurrent`, `budget_usd_per_day` or `budget_usd_per_month`"""
    limit: float
    remaining: float
    resets_at: datetime | None
    """When all of it is there again; null: as soon as requests are over."""


class LimitList(Page, kw_only=True):
    data: list[LimitStanding]


class ProviderQuota(Struct, kw_only=True):
    """What is left at a provider, as it says itself."""

    model: str | None
    unit: str | None
    window: str | None
    limit: float
    remaining: float
    resets_at: datetime | None


class Provider(Struct, kw_only=True):
    """A backend."""

    id: str
    object: Literal["provider"]
    kind: str
    price: str | None
    dialects: list[str]
    models: int | None
    own_keys: str
    status: Literal["ready", "troubled"]
    trouble: str | None
    routes_left_alone: int
    """So many of its models failed too often just now."""
    quotas: list[ProviderQuota]


class ProviderList(Page, kw_only=True):
    data: list[Provider]


class ListedModel(Struct, kw_only=True):
    """A model, or a configured name; what is unknown is null."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    backend: str
    modality: str
    capabilities: list[str]
    context_length: int | None
    status: str | None
    size_bytes: int | None
    quantization: str | None
    source: str | None
    license: str | None
    version: str | None
    parameters: int | None
    memory_bytes: int | None
    gated: bool | None
    price: str | None
    aliases: list[str]
    tags: list[str]
    summary: str | None
    routes: list[str] | None = None
    """Where a configured name leads."""
    pinned: bool | None = None
    reason: str | None = None
    """Why it cannot be served."""
    update: str | None = None
    """The newest revision at its source, if it is another one."""
    defaults: JsonObject | None = None
    hidden: bool | None = None


class ModelList(Page, kw_only=True):
    data: list[ListedModel]


class UsageRow(Struct, kw_only=True):
    """What one request took and cost."""

    request_id: str
    created_at: datetime
    tenant: str
    principal: str
    key: str | None
    route: str
    requested_model: str | None
    backend: str | None
    model: str | None
    status: int
    code: str | None
    attempts: int
    streamed: bool
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cache_written_tokens: int | None
    cost_usd: float | None
    price_source: str | None
    price_date: str | None
    queue_s: float | None
    load_s: float | None
    first_token_s: float | None
    total_s: float | None


class UsageSum(Struct, kw_only=True):
    """What many requests took and cost, and by what they are grouped."""

    requests: int
    errors: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cache_written_tokens: int | None
    cost_usd: float | None
    unpriced_requests: int
    total_s: float | None
    model: str | None = None
    backend: str | None = None
    route: str | None = None
    key: str | None = None
    user: str | None = None
    tenant: str | None = None
    status: int | None = None
    hour: str | None = None
    day: str | None = None
    month: str | None = None


_USAGE = [{"$ref": REFS.format(name=struct.__name__)} for struct in (UsageRow, UsageSum)]


class UsageList(Page, kw_only=True):
    data: Annotated[list[Any], Meta(extra_json_schema={"items": {"anyOf": _USAGE}})]
    """Sums where the request has `group_by`."""
    totals: UsageSum | None = None
    """With `group_by`: of all groups."""


class Alive(Struct):
    status: Literal["ok"]


class Readiness(Struct):
    status: Literal["ready", "draining", "unavailable"]
    checks: dict[str, str]
    """By dependency: `ok`, or what is wrong."""


class ItemList(Struct, kw_only=True):
    """OpenAI's list of input items."""

    object: Literal["list"]
    data: list[JsonObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseDeleted(Struct):
    id: str
    object: str
    deleted: bool


ANSWERS: dict[str, type[Struct] | str] = {
    "listKeys": ApiKeyList,
    "revokeKey": ApiKeyRevoked,
    "listCredentials": CredentialList,
    "deleteCredential": CredentialDeleted,
    "listAudit": AuditList,
    "listLimits": LimitList,
    "listProviders": ProviderList,
    "listModels": ModelList,
    "getModel": ListedModel,
    "registerModel": ListedModel,
    "changeModel": ListedModel,
    "updateModel": "ModelVersions",
    "listUsage": UsageList,
    "health": Alive,
    "ready": Readiness,
    "getSchema": "Schema",
    "getResponse": "Response",
    "deleteResponse": ResponseDeleted,
    "cancelResponse": "Response",
    "listInputItems": ItemList,
}
"""What operations answer, by their ids, where their handlers do not say: a struct, or the name of a schema."""
ALSO: dict[tuple[str, str], type[Struct] | str] = {
    ("ready", "503"): Readiness,
    ("putCredential", "200"): Credential,
}
"""What they answer besides, by status."""
ALONE = (UsageRow,)
"""What others refer to by name only."""
