"""Models and usage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.String(300), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("source", sa.String(500)),
        sa.Column("path", sa.String(1000)),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("quantization", sa.String(32)),
        sa.Column("context_length", sa.Integer),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "usage",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("requested_model", sa.String(300), nullable=False),
        sa.Column("backend", sa.String(64)),
        sa.Column("model", sa.String(300)),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("code", sa.String(64)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("streamed", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("queue_s", sa.Float, nullable=False),
        sa.Column("load_s", sa.Float, nullable=False),
        sa.Column("first_token_s", sa.Float),
        sa.Column("total_s", sa.Float, nullable=False),
    )
    op.create_index("ix_usage_tenant_created", "usage", ["tenant_id", "created_at"])


def downgrade() -> None:
    op.drop_table("usage")
    op.drop_table("models")
