"""Turns and their items: the conversations of /v1/responses, and of sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "turns",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64)),
        sa.Column("previous_id", sa.String(200)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("model", sa.String(300), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("remote", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_turns"),
    )
    op.create_index("ix_turns_session", "turns", ["tenant_id", "session_id", "created_at"])
    op.create_index("ix_turns_created", "turns", ["tenant_id", "created_at"])
    op.create_table(
        "items",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("turn_id", sa.String(200), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("output", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "turn_id", "position", name="pk_items"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "turn_id"], ["turns.tenant_id", "turns.id"], ondelete="CASCADE", name="fk_items_turn"
        ),
    )
    op.create_index("ix_items_id", "items", ["tenant_id", "id"])


def downgrade() -> None:
    op.drop_table("items")
    op.drop_table("turns")
