"""The names of the model families; light to import, because DAG files read the zoo."""

from collections.abc import Mapping

FAMILIES: Mapping[str, str] = {
    "lightgbm": "mlops_tasks.modeling.model_zoo.lightgbm:LightGBMFamily",
    "xgboost": "mlops_tasks.modeling.model_zoo.xgboost:XGBoostFamily",
    "linear": "mlops_tasks.modeling.model_zoo.linear:LinearFamily",
    "network": "mlops_tasks.modeling.model_zoo.network:NetworkFamily",
    "sklearn": "mlops_tasks.modeling.model_zoo.sklearn_family:SklearnFamily",
    "qlib": "mlops_tasks.modeling.model_zoo.qlib_family:QlibFamily",
}
"""Family name to its class, imported when it is needed: some import heavy libraries."""

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "lightgbm": ("lightgbm",),
    "xgboost": ("xgboost-cpu",),
    "linear": ("scikit-learn",),
    "network": ("torch", "safetensors"),
    "sklearn": ("scikit-learn", "skops"),
    "qlib": ("pyqlib",),
}
"""Distributions that a family's artefacts are read with, besides NumPy and pandas."""

CLASS_OF: Mapping[str, str] = {
    "network": "torch.nn.Module",
    "sklearn": "scikit-learn regressor",
    "qlib": "qlib.model.base.Model",
}
"""What the class path of an entry names, in the families that take one."""

LIBRARIES = frozenset(["mlops_tasks", "sklearn", "qlib", "torch", "lightgbm", "xgboost", "builtins"])
"""Packages whose classes are not a user's own: they come from the lock, and their versions identify them."""

THREADS_CHANGE_BYTES = frozenset(["network", "sklearn", "linear", "xgboost", "qlib"])
"""Families whose models may differ in the last bits with the number of threads, because sums are split among them."""

NO_MISSING_COLUMN = frozenset(["linear", "network"])
NO_INFINITE_VALUE = frozenset(["linear", "network", "sklearn", "xgboost"])
"""Families that cannot learn from columns without a value or from infinite values, unless a processor replaces them."""

ALWAYS_RUN_CODE = ("qlib",)
"""Families whose every artefact runs code when it is loaded; for others see `Family.runs_code`."""
