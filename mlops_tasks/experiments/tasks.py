"""Task entry of the experiments stage."""

import logging
from datetime import date

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.experiments.comparison import MIN_DAYS, REPORT, compare, write_comparison
from mlops_tasks.experiments.delivered import measure_delivered_gain, said
from mlops_tasks.files import digest_of, new_folder, read_json
from mlops_tasks.monitoring.contest import Contest, contest_of, paired_rank_ic
from mlops_tasks.registry.approvals import load_champion, load_recorded
from mlops_tasks.registry.client import CHALLENGER
from mlops_tasks.registry.models import LoadedModel, load_alias, load_version
from mlops_tasks.registry.report_artifacts import log_report
from mlops_tasks.reports import ReportKind
from mlops_tasks.stage_results import Compared, Judged, Skipped
from mlops_tasks.state.history import record_model_comparison
from mlops_tasks.state.tables import ModelComparison

log = logging.getLogger(__name__)


def compare_models_task(*, data_version: str, gate: Judged | None = None) -> Compared | Skipped:
    """Compare champion and challenger on the days that neither has learned from, and record the result.

    Also measure what the model in service has gained since its promotion (`delivered`, if the gate promised a gain).

    Parameters
    ----------
    gate
        Result of the gate stage: its two models are compared, even if the challenger was promoted since. None: the
        present champion and challenger.

    Returns
    -------
    The report: both versions, the difference of mean daily rank IC with interval and p-values, a `conclusion`, and
    `path` of its folder relative to the home folder; or `skipped` with a reason if there is nothing to compare.

    Raises
    ------
    StoreError, RegistryError
        The vintage or a version is missing, or a model's feature set is gone.
    """
    settings = load_settings()
    delivered = measure_delivered_gain(settings, data_version)
    result = _compare_models(settings, data_version, gate)
    if delivered is not None:
        result["delivered"] = said(delivered)
    return result


def _compare_models(settings: Settings, data_version: str, gate: Judged | None) -> Compared | Skipped:
    champion, challenger = _models(settings, gate)
    reason = _nothing_to_compare(champion, challenger)
    if reason is not None:
        return _skipped(reason)
    assert champion is not None and challenger is not None
    contest = contest_of(settings, champion, challenger, data_version)
    features = [contest.champion_features, contest.challenger_features]
    identity = [champion.training_key, challenger.training_key, data_version, *features]
    pair = f"v{champion.version}-v{challenger.version}"
    target = settings.reports_dir / "comparison" / f"{contest.vintage.last_date}-{pair}-{digest_of(identity, length=8)}"
    if not (target / REPORT).is_file():
        daily = paired_rank_ic(settings, contest)
        if len(daily) < MIN_DAYS:
            last = contest.learned_until.date()
            return _skipped(
                f"{len(daily)} labelled days after {last}, the last that a model learned from; wait for more"
            )
        with new_folder(target) as folder:
            write_comparison(folder, contest, compare(daily), data_version)
    report: Compared = read_json(target / REPORT) | {"path": settings.relative(target)}
    _record(settings, contest, report)
    log_report(settings, challenger.version, ReportKind.COMPARISON, target.name)
    return report


def _models(settings: Settings, gate: Judged | None) -> tuple[LoadedModel | None, LoadedModel | None]:
    if gate is None:
        return load_champion(settings), load_alias(settings, CHALLENGER)
    champion = gate["champion_version"]
    return None if champion is None else load_recorded(settings, champion), load_version(settings, gate["version"])


def _nothing_to_compare(champion: LoadedModel | None, challenger: LoadedModel | None) -> str | None:
    if champion is None:
        return "there is no champion to compare with"
    if challenger is None:
        return "there is no challenger to compare with"
    if champion.version == challenger.version:
        return f"champion and challenger are the same version {champion.version}"
    return None


def _record(settings: Settings, contest: Contest, report: Compared) -> None:
    row = ModelComparison(
        champion_version=contest.champion.version,
        challenger_version=contest.challenger.version,
        last_date=date.fromisoformat(report["last_date"]),
        result=dict(report),
    )
    record_model_comparison(settings, row)
    log.info("version %s against %s: %s", row.challenger_version, row.champion_version, report["conclusion"])


def _skipped(reason: str) -> Skipped:
    log.info("comparison skipped: %s", reason)
    return {"skipped": reason}
