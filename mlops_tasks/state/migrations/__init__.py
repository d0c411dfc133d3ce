"""Alembic migrations of the operational database; `state.database.upgrade` applies them."""
