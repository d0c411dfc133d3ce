"""The small operation of the registry's tests: a published vintage, its features, an empty registry."""

from tests.registry.conftest import migrated_mlflow, operation, settings, vintage_template
from tests.training.conftest import market

__all__ = ["market", "migrated_mlflow", "operation", "settings", "vintage_template"]
