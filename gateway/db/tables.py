"""The tables.  Every one has a tenant and an owner, so that isolation is a condition, not a rewrite."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

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
    Column("key_id", String(64), doc="the key it came with; null for a token, and where no key is needed"),
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
    Column("cache_written_tokens", BigInteger),
    Column("cost_nanousd", BigInteger, doc="billionths of a US dollar; null: unknown, which is not zero"),
    Column("price_source", String(64), doc="who said what the model costs; null: nobody"),
    Column("price_date", String(10), doc="the day its price was taken down, YYYY-MM-DD"),
    Column("queue_s", Float, nullable=False),
    Column("load_s", Float, nullable=False),
    Column("first_token_s", Float),
    Column("total_s", Float, nullable=False),
    Index("ix_usage_tenant_created", "tenant_id", "created_at"),
    Index("ix_usage_created", "created_at"),
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

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("owner_id", String(64), nullable=False, doc="the user it stands for"),
    Column("name", String(100), nullable=False),
    Column("prefix", String(16), nullable=False, doc="the part of the key that may be shown"),
    Column("mac", String(64), nullable=False, doc="HMAC-SHA256 of the whole key under the pepper, in hex"),
    Column("old_prefix", String(16), doc="of the key before its last rotation"),
    Column("old_mac", String(64)),
    Column("old_expires_at", Float, doc="until then the key before the last rotation is taken as well"),
    Column("scopes", Text, nullable=False, doc="JSON list"),
    Column("models", Text, doc="JSON list of names and globs it may ask for; null: any"),
    Column("backends", Text, doc="JSON list; null: any"),
    Column("tags", Text, nullable=False, doc="JSON object, name to value"),
    Column("limits", Text, doc="JSON object, see gateway.settings.Limit; null: the default for keys"),
    Column("created_at", Float, nullable=False, doc="seconds since 1970, UTC"),
    Column("created_by", String(64), nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("last_used_at", Float, doc="to the minute"),
    Index("ix_keys_prefix", "prefix", unique=True),
    Index("ix_keys_old_prefix", "old_prefix"),
    Index("ix_keys_tenant", "tenant_id", "created_at"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("owner_id", String(64), nullable=False, doc="whose requests it is used for, and nobody else's"),
    Column("backend", String(64), nullable=False),
    Column("kind", String(32), nullable=False, doc="api_key, service_account or oauth_token"),
    Column("base_url", String(500), doc="null: the backend's own address"),
    Column("master_id", String(16), nullable=False, doc="which master key sealed it"),
    Column("sealed", Text, nullable=False, doc="base64 of nonce and AES-256-GCM of the secret, bound to this row"),
    Column("status", String(16), nullable=False, doc="unused, accepted, rejected or unreadable"),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("last_used_at", Float),
    UniqueConstraint("tenant_id", "owner_id", "backend", name="uq_credentials_owner_backend"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("scope", String(200), primary_key=True, doc="key:ID, token: or user:TENANT/NAME, tenant:NAME, model:GLOB"),
    Column("period", String(10), primary_key=True, doc="a day, YYYY-MM-DD, or a month, YYYY-MM; UTC"),
    Column("tenant_id", String(64), nullable=False, doc="empty for a model's, which is everybody's"),
    Column("owner_id", String(64), nullable=False),
    Column("spent_nanousd", BigInteger, nullable=False, doc="what is settled, and what is reserved for requests"),
    Column("updated_at", Float, nullable=False),
)

quotas = Table(
    "quotas",
    metadata,
    Column("account", String(120), primary_key=True, doc="the backend; for a user's own key its id behind a #"),
    Column("model", String(300), primary_key=True, doc="empty where the provider counts all models together"),
    Column("unit", String(16), primary_key=True, doc="requests, tokens …; any: of what, the provider did not say"),
    Column("span", String(8), primary_key=True, doc="the window's name, like day; empty: it did not say"),
    Column("tenant_id", String(64), nullable=False),
    Column("owner_id", String(64), nullable=False),
    Column("most", BigInteger, doc="in one window; null: the provider did not say"),
    Column("remaining", BigInteger, nullable=False),
    Column("resets_at", Float, nullable=False, doc="seconds since 1970, UTC: when all of it is there again"),
    Column("evenly", Integer, nullable=False, doc="1: it comes back bit by bit until then"),
    Column("updated_at", Float, nullable=False),
)

memory = Table(
    "memory",
    metadata,
    Column("key", String(300), primary_key=True, doc="of a local model, its file and how it is run"),
    Column("tenant_id", String(64), nullable=False),
    Column("owner_id", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False, doc="the most that its process was ever found to take"),
    Column("updated_at", Float, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("tenant_id", String(64), nullable=False, doc="of what was acted on"),
    Column("owner_id", String(64), nullable=False, doc="who acted"),
    Column("at", Float, nullable=False, doc="seconds since 1970, UTC"),
    Column("action", String(64), nullable=False, doc="noun.verb, like key.revoke"),
    Column("target", String(300), nullable=False, doc="the id of what was acted on"),
    Column("request_id", String(128), doc="null for acts at the command line"),
    Column("detail", Text, nullable=False, doc="JSON object; never a secret"),
    Index("ix_audit_at", "at"),
)
