"""Keys, credentials, budgets, quotas and the audit log; what a request cost."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("usage", sa.Column("key_id", sa.String(64)))
    op.add_column("usage", sa.Column("cache_written_tokens", sa.BigInteger))
    op.add_column("usage", sa.Column("cost_nanousd", sa.BigInteger))
    op.add_column("usage", sa.Column("price_source", sa.String(64)))
    op.add_column("usage", sa.Column("price_date", sa.String(10)))
    op.create_index("ix_usage_created", "usage", ["created_at"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("mac", sa.String(64), nullable=False),
        sa.Column("old_prefix", sa.String(16)),
        sa.Column("old_mac", sa.String(64)),
        sa.Column("old_expires_at", sa.Float),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("models", sa.Text),
        sa.Column("backends", sa.Text),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("limits", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("last_used_at", sa.Float),
    )
    op.create_index("ix_keys_prefix", "keys", ["prefix"], unique=True)
    op.create_index("ix_keys_old_prefix", "keys", ["old_prefix"])
    op.create_index("ix_keys_tenant", "keys", ["tenant_id", "created_at"])
    op.create_table(
        "credentials",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("base_url", sa.String(500)),
        sa.Column("master_id", sa.String(16), nullable=False),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("last_used_at", sa.Float),
        sa.UniqueConstraint("tenant_id", "owner_id", "backend", name="uq_credentials_owner_backend"),
    )
    op.create_table(
        "budgets",
        sa.Column("scope", sa.String(200), primary_key=True),
        sa.Column("period", sa.String(10), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("spent_nanousd", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "quotas",
        sa.Column("account", sa.String(120), primary_key=True),
        sa.Column("model", sa.String(300), primary_key=True),
        sa.Column("unit", sa.String(16), primary_key=True),
        sa.Column("span", sa.String(8), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("most", sa.BigInteger),
        sa.Column("remaining", sa.BigInteger, nullable=False),
        sa.Column("resets_at", sa.Float, nullable=False),
        sa.Column("evenly", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.String(300), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at"])


def downgrade() -> None:
    op.drop_table("audit")
    op.drop_table("quotas")
    op.drop_table("budgets")
    op.drop_table("credentials")
    op.drop_table("keys")
    op.drop_index("ix_usage_created", "usage")
    for column in ("price_date", "price_source", "cost_nanousd", "cache_written_tokens", "key_id"):
        op.drop_column("usage", column)
