"""Runs the migrations on the connection that `state.database.upgrade` holds, inside its transaction."""

from alembic import context

from mlops_tasks.state.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=Base.metadata, render_as_batch=connection.dialect.name == "sqlite"
)
context.run_migrations()
