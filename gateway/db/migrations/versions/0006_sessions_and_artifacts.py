"""Sessions, artifacts and kept answers; and usage tells a request's history."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("usage", sa.Column("said", sa.String(500)))
    op.create_index("ix_usage_request", "usage", ["tenant_id", "request_id"])
    op.add_column("turns", sa.Column("messages", sa.Integer))
    op.add_column("turns", sa.Column("words", sa.Text))
    op.create_index("ix_turns_previous", "turns", ["tenant_id", "session_id", "previous_id", "id", "messages"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("title", sa.String(300)),
        sa.Column("words", sa.Text),
        sa.Column("titled", sa.Integer, nullable=False),
        sa.Column("system", sa.Text),
        sa.Column("model", sa.String(300)),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("context", sa.String(16)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("head", sa.String(200)),
        sa.Column("message_count", sa.Integer, nullable=False),
        sa.Column("summary", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("last_used_at", sa.Float, nullable=False),
        sa.Column("closed_at", sa.Float),
        sa.Column("held_by", sa.String(40)),
        sa.Column("held_until", sa.Float),
    )
    op.create_index("ix_sessions_tenant_used", "sessions", ["tenant_id", "last_used_at", "id"])
    op.create_index("ix_sessions_used", "sessions", ["last_used_at"])
    op.create_table(
        "artifacts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("mime", sa.String(100), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("meta", sa.Text, nullable=False),
        sa.Column("parent_id", sa.String(64)),
        sa.Column("request_id", sa.String(128)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
    )
    op.create_index("ix_artifacts_tenant", "artifacts", ["tenant_id", "id"])
    op.create_index("ix_artifacts_sha256", "artifacts", ["tenant_id", "sha256"])
    op.create_index("ix_artifacts_key", "artifacts", ["tenant_id", "key_id"])
    op.create_index("ix_artifacts_parent", "artifacts", ["parent_id"])
    op.create_index("ix_artifacts_expires", "artifacts", ["expires_at"])
    op.create_table(
        "blobs",
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.UniqueConstraint("key", name="uq_blobs_key"),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("wanted_at", sa.Float, nullable=False),
    )

    op.create_table(
        "artifact_uses",
        sa.Column("session_id", sa.String(64), primary_key=True),
        sa.Column("artifact_id", sa.String(64), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
    )
    op.create_index("ix_artifact_uses_artifact", "artifact_uses", ["artifact_id"])
    op.create_table(
        "answers",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("tenant_id", sa.String(64), primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("owner_id", sa.String(64), nullable=False),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("asynchronous", sa.Integer, nullable=False),
        sa.Column("flight", sa.String(64)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("standing", sa.Text),
        sa.Column("http_status", sa.Integer),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("partial", sa.LargeBinary),
        sa.Column("worker", sa.String(40)),
        sa.Column("lease_until", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.UniqueConstraint("tenant_id", "flight", name="uq_answers_tenant_id"),
    )
    op.create_index("ix_answers_tenant", "answers", ["tenant_id", "ended_at"])
    op.create_index("ix_answers_request", "answers", ["request_id"])
    op.create_index("ix_answers_expires", "answers", ["expires_at"])
    op.create_index("ix_answers_lease", "answers", ["lease_until"])
