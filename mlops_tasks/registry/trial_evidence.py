"""What the gate uses from earlier trainings: the trials that a challenger was chosen from, and seed noise."""

from collections.abc import Sequence

from mlops_tasks.columns import LABEL, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.evaluation.backtest_overfitting import MIN_DAYS, SearchEvidence, search_evidence
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.seed_noise import GATED_METRIC, SeedBand, configuration_key, seed_band
from mlops_tasks.state.history import latest_seed_noise
from mlops_tasks.state.trials import daily_rank_ics, trials_of, trials_over
from mlops_tasks.states import FitVerdict, TrialOutcome
from mlops_tasks.training_folder import TrainingFolder

WARNED_OF = (FitVerdict.OVERFITTING, FitVerdict.UNDERFITTING)
"""Verdicts on a training that the gate mentions."""


def search_evidence_of(settings: Settings, training_key: str, studies: Sequence[str]) -> SearchEvidence | None:
    """What a training's own daily rank ICs on its validation segment are worth after the searches that it comes from.

    All trials that were compared on these searches' days with the same horizon count, including those of other studies
    and vintages: whoever searches every day and takes the best has searched in all of them. Failed trials could not
    have been chosen and do not count.

    Returns
    -------
    None if these studies have no daily rank ICs on the training's validation days.
    """
    valid = TrainingFolder.of(settings, training_key).segment("valid")
    chosen = daily_rank_ic(valid[SCORE], valid[LABEL])
    own = [row for study in studies for row in trials_of(settings, study)]
    days = daily_rank_ics(own).dropna(how="all").index
    if len(chosen.index.intersection(days)) < MIN_DAYS:
        return None
    horizon = own[0].horizon
    candidates = [row for row in trials_over(settings, horizon, days) if row.state != TrialOutcome.FAILED]
    return search_evidence(chosen, daily_rank_ics(candidates).reindex(days), len(candidates), horizon)


def fit_warning_of(settings: Settings, training_key: str) -> str | None:
    """Concerns about how a training went, in words and numbers; None: there are none, or nothing is known."""
    metrics = TrainingFolder.of(settings, training_key).find_metrics()
    fit = None if metrics is None else metrics.fit
    return fit.explanation if fit is not None and fit.verdict in WARNED_OF else None


def seed_noise_of(settings: Settings, training_key: str) -> SeedBand | None:
    """Rank IC on test days over several seeds of a training's configuration.

    None if fewer than two seeds were trained, or the training's folder is gone: the registry only keeps the model.
    """
    trained = TrainingFolder.of(settings, training_key).find_manifest()
    found = None if trained is None else latest_seed_noise(settings, configuration_key(trained))
    values = {} if found is None else found.result.get(GATED_METRIC, {})
    return seed_band(list(values.values())) if len(values) > 1 else None
