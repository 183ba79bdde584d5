"""Alembic's entry: runs the revisions on the connection that `routing.store.schema` hands over, in its transaction."""

from alembic import context

from routing.store import models

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=models.Base.metadata, transaction_per_migration=False)
context.run_migrations()
