"""UnifiedQlibTrainingEngine: one way from a plan to a trained artefact, whatever the model family."""

import contextlib
import io
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL, SCORE, SEGMENT
from mlops_tasks.config import Settings
from mlops_tasks.errors import TrainingError
from mlops_tasks.files import digest_of, new_folder, write_json
from mlops_tasks.training.artefact import PROCESSORS, ModelArtefact, write_manifest
from mlops_tasks.training.configuration import TrainingConfig, resolve_config
from mlops_tasks.training.dataset import LearningData, fit_processors, load_learning_data
from mlops_tasks.training.model_zoo.family import find_family
from mlops_tasks.training.plan import RunPlan
from mlops_tasks.training.problem import learning_problem
from mlops_tasks.training.session import TrainingSession

log = logging.getLogger(__name__)

ENGINE_VERSION = 2
"""Raise it when the same plan would train another model: training keys depend on it."""


class UnifiedQlibTrainingEngine:
    """Trains any model of the zoo on a plan's segments and leaves one folder, complete or absent.

    The folder's name, the training key, is the digest of the numbers that the model learns from, its configuration and
    the seed: the same problem is never trained twice, and a restarted training ends in the same folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def train(self, plan: RunPlan, feature_version: str, model: str) -> Path:
        """Train one model of the plan.

        Returns
        -------
        The training folder: plan.json, model/, predictions.parquet (datetime, instrument, segment, score, label of
        valid and test), curves.json, importance.json, metrics.json.

        Raises
        ------
        ConfigError, TrainingError
            The model is unknown, or the data cannot be learned from.
        """
        config = resolve_config(model, seed=plan.seed)
        data = load_learning_data(self.settings, plan, feature_version)
        configuration = {
            "engine_version": ENGINE_VERSION,
            "model": model,
            "model_config": config.model_dump(mode="json"),
            "horizon": plan.horizon,
            "seed": plan.seed,
            "portfolio": {"topk": plan.topk, "n_drop": plan.n_drop},
        }
        key = digest_of({**configuration, "learning_data": data.digest()})
        target = self.settings.training_dir / key
        if target.is_dir():
            log.info("%s: already trained as %s", model, key)
            return target
        lineage = {
            **plan.model_dump(mode="json"),
            **configuration,
            "training_key": key,
            "feature_version": feature_version,
        }
        with new_folder(target) as folder:
            self._train_into(folder, lineage, data)
        log.info("%s: trained as %s", model, key)
        return target

    def _train_into(self, folder: Path, lineage: dict[str, Any], data: LearningData) -> None:
        config = TrainingConfig.model_validate(lineage["model_config"])
        started = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):  # Qlib prints which optional models it lacks
            family = find_family(config.family)()
        session = TrainingSession(config, threads=self.settings.training.threads)
        processors = fit_processors(data, config.feature_processors)
        result = family.fit(learning_problem(data, processors, config.label_processor), session)

        model_folder = folder / "model"
        model_folder.mkdir()
        family.save(model_folder)
        write_json(model_folder / PROCESSORS, processors.to_json())
        names = (
            "training_key",
            "model",
            "feature_set",
            "feature_version",
            "data_version",
            "horizon",
            "segments",
            "seed",
        )
        manifest = {name: lineage[name] for name in names}
        write_manifest(
            model_folder, {**manifest, "family": config.family, "feature_names": list(data.features.columns)}
        )

        predictions = self._predict(ModelArtefact.load(model_folder, self.settings.training.threads), data)
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        write_json(folder / "plan.json", lineage)
        write_json(folder / "curves.json", session.curves())
        write_json(folder / "importance.json", result.importance)
        write_json(
            folder / "metrics.json",
            {
                "best_iteration": result.best_iteration,
                "train_seconds": round(time.monotonic() - started, 3),
                "train_rows": int(data.label.iloc[data.rows("train")].notna().sum()),
                "valid_rows": int(data.label.iloc[data.rows("valid")].notna().sum()),
            },
        )

    @staticmethod
    def _predict(artefact: ModelArtefact, data: LearningData) -> pd.DataFrame:
        """Scores of valid and test through the saved artefact, so that training and serving agree by construction."""
        parts = []
        for segment in ("valid", "test"):
            rows = data.rows(segment)
            index = data.features.index[rows]
            part = pd.DataFrame(
                {
                    DATETIME: index.get_level_values(DATETIME),
                    INSTRUMENT: index.get_level_values(INSTRUMENT),
                    SEGMENT: segment,
                    SCORE: artefact.predict(data.features.iloc[rows]).to_numpy(),
                    LABEL: data.label.iloc[rows].to_numpy(),
                }
            )
            parts.append(part)
        predictions = pd.concat(parts, ignore_index=True)
        if not np.isfinite(predictions[SCORE]).all():
            raise TrainingError(
                "the trained model scores some rows with no finite number; check features and hyper-parameters"
            )
        return predictions
