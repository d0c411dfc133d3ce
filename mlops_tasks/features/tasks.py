"""The stages that the DAGs run: plain JSON in, plain JSON out."""

from mlops_tasks.config import load_settings
from mlops_tasks.data.callbacks import FinishedSync
from mlops_tasks.data.vintages import current_vintage, load_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.stage_results import Features


def compute_features_task(*, data_version: str | None = None, feature_set: str = "alpha158") -> Features:
    """Compute and store the features of a data version (None: that in use); a second call computes nothing.

    Raises
    ------
    StoreError, ConfigError
        No such data version, or none is in use; no such feature set.
    """
    settings = load_settings()
    vintage = current_vintage(settings) if data_version is None else load_vintage(settings, data_version)
    version = FeatureStore(settings).compute(vintage, feature_set)
    return {
        "feature_version": version.feature_version,
        "data_version": version.data_version,
        "feature_set": version.feature_set,
        "rows": version.rows,
        "computed_rows": version.computed_rows,
        "columns": len(version.names),
    }


def compute_on_sync(sync: FinishedSync) -> None:
    """A callback for `data.on_sync`: compute and store the configured feature set of what came into use.

    For a library user without Airflow, where the DAG `daily_retraining` does it.
    """
    FeatureStore(sync.settings).compute(sync.vintage(), sync.settings.features.feature_set)
