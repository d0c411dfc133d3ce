"""The small operation of the registry's tests: a published vintage, its features, an empty registry."""

from tests.registry.conftest import migrated_mlflow, operation, settings, vintage_template

__all__ = ["migrated_mlflow", "operation", "settings", "vintage_template"]
