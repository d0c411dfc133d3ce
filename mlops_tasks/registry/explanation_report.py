"""The report of a version: one HTML page, plots and tables, below `<home>/reports/explanation` and in MLflow."""

import logging
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.explain.day_list import day_changes, day_json, day_reasons
from mlops_tasks.explain.model_report import ModelReport
from mlops_tasks.explain.report_page import DayList, Figures, Subject, report_page
from mlops_tasks.files import digest_of, finite_or_none, new_folder, write_json, write_text
from mlops_tasks.registry.explained import ExplainedDay, ExplainedVersion
from mlops_tasks.registry.report_artifacts import log_report
from mlops_tasks.reports import ReportKind

log = logging.getLogger(__name__)

REPORT, PAGE = "report.json", "explanation.html"
LAYOUT = 1
"""Part of a report's name: another content is another report."""
NAMES, PARTS = 10, 5
"""Of the day's list, and contributions of each."""
LISTED = 20
"""Features that report.json names."""


def publish_explanation(
    settings: Settings, version: int, data_version: str | None = None, replaced: int | None = None
) -> Path:
    """Make the report of a version for the newest day of a vintage, and log it to the version's run in MLflow.

    What is there already is not made again. Returns its folder.

    Parameters
    ----------
    data_version
        None: the vintage in use.
    replaced
        The version that scored the day before; None: the same one.

    Raises
    ------
    ExplanationError
        The model's family, or the kind of its trees, is not explained.
    RegistryError, StoreError
        There is no such version or vintage, or the model's feature set is gone.
    """
    vintage = None if data_version is None else load_vintage(settings, data_version)
    found = ExplainedVersion.of(settings, version, vintage)
    day = found.trading_day(None)
    identity = [found.model.training_key, found.vintage.data_version, found.source.feature_version, replaced, LAYOUT]
    name = f"{day.date()}-v{version}-{digest_of(identity, length=8)}"
    target = settings.reports_dir / "explanation" / name
    if not (target / REPORT).is_file():
        with new_folder(target) as folder:
            write_explanation(folder, found, replaced)
    log_report(settings, version, ReportKind.EXPLANATION, name)
    return target


def write_explanation(folder: Path, found: ExplainedVersion, replaced: int | None = None) -> None:
    """Write report.json, explanation.html, the plots and the tables into a folder."""
    from mlops_tasks.explain.report_figures import report_figures
    from mlops_tasks.plots.figure import svg_text, write_png

    report, day = found.report(), _day_list(found, replaced)
    figures = report_figures(report)
    for name, figure in figures.items():
        write_png(figure, folder / f"{name}.png")
        figure.set_layout_engine("none")  # it has its layout, which takes longer than drawing it
    drawn = Figures(**{name: svg_text(figure, name) for name, figure in figures.items()})
    write_text(folder / PAGE, report_page(_subject(found), report, day, drawn))
    report.table().reset_index().to_parquet(folder / "features.parquet", index=False)
    report.by_period().to_parquet(folder / "periods.parquet", index=False)
    report.dependence_table().to_parquet(folder / "dependence.parquet", index=False)
    write_json(folder / REPORT, _summary(found, report, day))
    log.info(
        "explained version %d on %d scores of %d days", found.model.version, report.rows, len(report.explanation.days)
    )


def _day_list(found: ExplainedVersion, replaced: int | None) -> DayList:
    explained = ExplainedDay.by(found, names=NAMES, replaced=replaced)
    reasons = day_reasons(explained.explanation, explained.day, NAMES, PARTS)
    changes = None
    if len(explained.explanation.days) > 1:
        changes = day_changes(explained.explanation, explained.day, NAMES, PARTS, explained.replaced)
    return DayList(reasons, changes, replaced if explained.replaced is not None else None)


def _subject(found: ExplainedVersion) -> Subject:
    manifest, model = found.model.artefact.manifest, found.model
    name = str(model.tags.get("model", manifest["family"]))
    return Subject(model.version, name, found.definition.name, found.vintage.data_version, model.training_key)


def _summary(found: ExplainedVersion, report: ModelReport, day: DayList) -> dict[str, Any]:
    gap, first = report.explanation.gap, report.features.table.head(LISTED)
    return {
        "model_version": found.model.version,
        "training_key": found.model.training_key,
        "data_version": found.vintage.data_version,
        "feature_set": found.definition.name,
        "method": str(report.explanation.method),
        "sample": {"rows": report.rows, "days": len(report.explanation.days), "span": list(report.span)},
        "additivity_gap": {"largest": gap.largest, "mean": gap.mean, "share": gap.share},
        "sampling_error": finite_or_none(report.explanation.error_share),
        "ic": finite_or_none(report.ic),
        "rank_correlation": finite_or_none(report.features.periods.rank_correlation()),
        "features": {str(name): finite_or_none(share) for name, share in first["share"].items()},
        "groups": {
            str(name): {"share": finite_or_none(row["share"]), "ic_part": finite_or_none(row["ic_part"])}
            for name, row in report.groups.table.iterrows()
        },
        "replaced_version": day.replaced,
        **day_json(day.reasons, day.changes),
    }
