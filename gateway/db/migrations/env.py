"""Alembic's entry: runs the revisions on the connection that `gateway.db.engine` hands over."""

from alembic import context

from gateway.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
