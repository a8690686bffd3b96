"""Runs the steps on the connection, and in the transaction, that ``schema.migrate`` has opened."""

from alembic import context

from opsagent_jupyter.stores.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=context.config.attributes["version_table"],
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
