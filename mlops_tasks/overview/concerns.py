"""What is wrong with an operation, according to its overview: a pure function."""

from collections.abc import Iterator

from mlops_tasks.overview.parts import Concern, Overview, Part
from mlops_tasks.state.alerts.episodes import Severity


def concerns(found: Overview) -> list[Concern]:
    """Everything that is not as it should be, the grave ones first; none: the operation is healthy.

    A home in which nothing was published yet is not unhealthy, but its beginning is something to do.
    """
    every = [*_of_data(found), *_of_service(found), *_of_drift(found), *_of_alerts(found)]
    return sorted(every, key=lambda each: not each.is_grave)


def _of_data(found: Overview) -> Iterator[Concern]:
    if found.unreadable:
        yield Concern(Part.DATA, True, f"the vintage in use cannot be read: {found.unreadable}")
    elif found.bars is None:
        yield Concern(Part.DATA, False, "no vintage has been published yet: run sync_market_data")
    elif found.bars.is_behind:
        yield Concern(
            Part.DATA, True, f"the bars of {found.bars.due} are missing; the newest are of {found.bars.last_date}"
        )


def _of_service(found: Overview) -> Iterator[Concern]:
    if found.bars is None:
        return
    if found.champion is None:
        yield Concern(Part.CHAMPION, False, "no model serves yet: the gate has promoted none")
        return
    if found.champion.is_provisional:
        yield Concern(Part.CHAMPION, False, f"version {found.champion.version} is provisional: it has proven no skill")
    if found.scores is None:
        yield Concern(Part.SCORES, True, f"there are no scores of version {found.champion.version}")
    elif found.scores.date < found.bars.last_date:
        yield Concern(
            Part.SCORES,
            True,
            f"the scores of {found.bars.last_date} are missing; the newest are of {found.scores.date}",
        )


def _of_drift(found: Overview) -> Iterator[Concern]:
    drift = found.drift
    if drift is not None and drift.beyond:
        columns = "column is" if drift.beyond == 1 else "columns are"
        yield Concern(Part.DRIFT, False, f"{drift.beyond} {columns} beyond the limit of drift on {drift.date}")


def _of_alerts(found: Overview) -> Iterator[Concern]:
    """One for all of a severity: the alerts themselves stand beside it."""
    for severity in (Severity.CRITICAL, Severity.WARNING):
        count = sum(each.severity == severity for each in found.alerts)
        if count:
            alerts = "alert is" if count == 1 else "alerts are"
            yield Concern(Part.ALERTS, severity == Severity.CRITICAL, f"{count} {severity} {alerts} open")
