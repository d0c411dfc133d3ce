"""The registry's fixtures, and a running scoring service."""

from tests.registry.conftest import migrated_mlflow, operation, settings, vintage_template
from tests.serving.conftest import client, service

__all__ = ["client", "migrated_mlflow", "operation", "service", "settings", "vintage_template"]
