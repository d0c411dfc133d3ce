"""The plots of a model's report."""

from matplotlib.figure import Figure

from mlops_tasks.explain.model_report import ModelReport
from mlops_tasks.plots.explanation import (
    dependence_info,
    groups_info,
    influence_info,
    plot_dependence,
    plot_groups,
    plot_influence,
)


def report_figures(report: ModelReport) -> dict[str, Figure]:
    """By name: `influence`, `groups`, `dependence`."""
    groups = report.groups.periods
    curves = [(each.feature, each.values, each.scores) for each in report.dependence]
    return {
        "influence": plot_influence(influence_info(report.features.table, len(groups.shares))),
        "groups": plot_groups(groups_info(groups.shares, groups.ic_parts, groups.ic)),
        "dependence": plot_dependence(dependence_info(curves)),
    }
