"""The tables.  Every one has a tenant and an owner, so that isolation is a condition, not a rewrite."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table

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
