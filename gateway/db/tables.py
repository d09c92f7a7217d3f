"""The tables.  Every one has a tenant and an owner, so that isolation is a condition, not a rewrite."""

from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Index, Integer, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("id", String(300), primary_key=True, doc="BACKEND/NAME"),
    Column("tenant_id", String(64), nullable=False),
    Column("owner_id", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("source", String(500)),
    Column("path", String(1000)),
    Column("size_bytes", BigInteger),
    Column("quantization", String(32)),
    Column("context_length", Integer),
    Column("status", String(16), nullable=False),
    Column("created_at", Float, nullable=False, doc="seconds since 1970, UTC"),
    Column("updated_at", Float, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("owner_id", String(64), nullable=False, doc="the principal who asked"),
    Column("request_id", String(128), nullable=False),
    Column("created_at", Float, nullable=False, doc="seconds since 1970, UTC"),
    Column("route", String(64), nullable=False, doc="path template of the endpoint"),
    Column("requested_model", String(300), nullable=False),
    Column("backend", String(64)),
    Column("model", String(300)),
    Column("status", Integer, nullable=False),
    Column("code", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("streamed", Integer, nullable=False),
    Column("input_tokens", BigInteger, doc="null: the backend did not say"),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("queue_s", Float, nullable=False),
    Column("load_s", Float, nullable=False),
    Column("first_token_s", Float),
    Column("total_s", Float, nullable=False),
    Index("ix_usage_tenant_created", "tenant_id", "created_at"),
)

turns = Table(
    "turns",
    metadata,
    # A provider's ids are its own: two tenants may hold the same one, and neither sees the other's.
    Column("tenant_id", String(64), primary_key=True),
    Column("id", String(200), primary_key=True, doc="the response's id, ours or the provider's"),
    Column("owner_id", String(64), nullable=False, doc="the principal who asked"),
    Column("session_id", String(64), doc="null: it belongs to no session"),
    Column("previous_id", String(200), doc="the turn this one goes on from"),
    Column("created_at", Float, nullable=False, doc="seconds since 1970, UTC"),
    Column("backend", String(64), nullable=False),
    Column("model", String(300), nullable=False, doc="the backend's own name for it"),
    Column("status", String(16), nullable=False),
    Column("remote", Integer, nullable=False, doc="1: the backend keeps the contents, here is only whose they are"),
    Column("body", Text, nullable=False, doc="the response as JSON, without its output; empty when remote"),
    Column("input_tokens", BigInteger, doc="null: the backend did not say"),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Index("ix_turns_session", "tenant_id", "session_id", "created_at"),
    Index("ix_turns_created", "tenant_id", "created_at"),
)

items = Table(
    "items",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("turn_id", String(200), primary_key=True),
    Column("position", Integer, primary_key=True, doc="what was given first, then what came back"),
    Column("owner_id", String(64), nullable=False),
    Column("id", String(200), nullable=False),
    Column("output", Integer, nullable=False, doc="1: it came back"),
    Column("kind", String(64), nullable=False),
    Column("body", Text, nullable=False, doc="the item as JSON; empty when the backend keeps it"),
    ForeignKeyConstraint(
        ["tenant_id", "turn_id"], ["turns.tenant_id", "turns.id"], ondelete="CASCADE", name="fk_items_turn"
    ),
    Index("ix_items_id", "tenant_id", "id"),
)
