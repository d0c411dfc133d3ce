"""Older revisions of the state database."""

from alembic import command

from mlops_tasks.config import Settings
from mlops_tasks.state import database


def downgrade(settings: Settings, revision: str) -> None:
    """Back to an older revision."""
    with database.engine(settings.state_database).connect() as connection, connection.begin():
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
