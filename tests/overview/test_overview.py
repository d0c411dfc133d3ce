"""The overview says how the operation stands, from the state database and files alone."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import CalendarSettings, Settings
from mlops_tasks.data.revisions.approvals import approve
from mlops_tasks.data.vintages import vintage_path, write_vintage
from mlops_tasks.overview import reading
from mlops_tasks.overview.concerns import concerns
from mlops_tasks.overview.parts import Part
from mlops_tasks.overview.reading import overview
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.rollouts import Rollout, RolloutPlan, record_rollout
from mlops_tasks.state.tables import now
from mlops_tasks.states import ExperimentState, RolloutState, Strategy
from tests.operation import bars
from tests.overview import desk


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An empty home."""
    return Settings(home=tmp_path)


def test_an_empty_home_is_told_how_to_begin(settings: Settings) -> None:
    """Nothing is there, nothing is grave, and the one thing to do is named."""
    found = overview(settings)
    assert (found.bars, found.scores, found.champion, found.gate, found.drift) == (None,) * 5
    assert (found.alerts, found.work, found.waiting) == ([], [], [])
    (only,) = concerns(found)
    assert (only.part, only.is_grave) == (Part.DATA, False) and "run sync_market_data" in only.said


def test_a_day_on_which_all_is_well(settings: Settings) -> None:
    """Bars and their vintage, scores and when they came, who serves and since when, the gate in a sentence, drift."""
    vintage = desk.publish_bars(settings)
    desk.serve(settings, 1)
    desk.serve(settings, 2)
    desk.score(settings, 2)
    desk.keep(settings, "k3", 2, "the next look is due in 4 market days", wait={"days": 4, "next_day": "2026-02-06"})
    desk.drift(settings, 2, beyond=0)
    found = overview(settings)
    assert found.bars is not None and found.scores is not None and found.gate is not None
    assert (found.bars.data_version, found.bars.source) == (vintage.data_version, "bars.parquet")
    assert (found.bars.rows, found.bars.instruments, found.bars.quarantined) == (100, 5, 2)
    assert found.bars.last_date == desk.LAST and found.bars.in_use_since is not None
    assert (found.scores.date, found.scores.version, found.scores.instruments) == (desk.LAST, 2, 5)
    assert found.champion is not None and found.drift is not None
    assert (found.champion.version, found.champion.family, found.champion.previous) == (2, "lightgbm", 1)
    assert not found.champion.is_provisional and found.champion.since <= now()
    assert found.gate.sentence == (
        "version 2 stays the champion, training k3 (linear) is not promoted, by rule between_looks: the next look is "
        "due in 4 market days"
    )
    assert found.gate.next_look == "in 4 market days, about 2026-02-06"
    assert (found.drift.beyond, found.drift.report) == (0, f"{desk.LAST}-v2-0a1b2c3d")
    assert concerns(found) == []


def test_what_is_missing_is_a_concern(settings: Settings) -> None:
    """A champion without the newest day's scores, one without proof, columns that drift."""
    desk.publish_bars(settings)
    desk.serve(settings, 1, rule="provisional")
    told = {each.part: each for each in concerns(overview(settings))}
    assert told[Part.SCORES].said == "there are no scores of version 1" and told[Part.SCORES].is_grave
    assert "has proven no skill" in told[Part.CHAMPION].said
    desk.score(settings, 1, desk.DAYS[-2].date())
    desk.drift(settings, 1, beyond=3)
    told = {each.part: each for each in concerns(overview(settings))}
    assert told[Part.SCORES].said.startswith(f"the scores of {desk.LAST} are missing")
    assert told[Part.DRIFT].said.startswith("3 columns are beyond the limit")
    assert concerns(overview(settings))[0].part is Part.SCORES, "the grave one is first"


@pytest.mark.parametrize(("moment", "due", "behind"), [
    (datetime(2026, 1, 30, 23, 45, tzinfo=UTC), date(2026, 1, 30), False),
    (datetime(2026, 2, 2, 22, 0, tzinfo=UTC), date(2026, 1, 30), False),  # the close was an hour ago
    (datetime(2026, 2, 2, 23, 45, tzinfo=UTC), date(2026, 2, 2), True),
])  # fmt: skip
def test_a_session_is_missed_once_its_sync_should_be_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, moment: datetime, due: date, behind: bool
) -> None:
    """By the market's own calendar, and only where scores follow the market."""
    vintage = desk.publish_bars(settings)
    unfollowed = reading._bars(settings, vintage, moment)
    assert (unfollowed.due, unfollowed.is_behind) == (None, False)
    monkeypatch.setattr("mlops_tasks.state.alerts.signals.LIVE", timedelta(days=3650))
    desk.serve(settings, 1)
    desk.score(settings, 1)
    found = reading._bars(settings.model_copy(update={"calendar": CalendarSettings()}), vintage, moment)
    assert (found.due, found.is_behind) == (due, behind)


def test_a_damaged_vintage_is_told_and_hides_nothing_else(settings: Settings) -> None:
    """The reason is there, and so is who serves."""
    vintage = desk.publish_bars(settings)
    desk.serve(settings, 1)
    (vintage_path(settings, vintage.data_version) / "universe.txt").unlink()
    found = overview(settings)
    assert found.bars is None and "no complete vintage" in found.unreadable
    assert found.champion is not None and concerns(found)[0].is_grave


def test_what_is_under_way_and_what_waits_for_a_person(settings: Settings) -> None:
    """Running experiments and rollouts are work; a stopped experiment and a blocked vintage wait, until they are
    decided and approved; an alert that is open is counted by its severity."""
    old = desk.publish_bars(settings)
    for name, state in (("orders", "running"), ("costs", "stopped"), ("old", "decided"), ("new", "draft")):
        desk.experiment(settings, name, ExperimentState(state))
    plan = RolloutPlan((0.05, 0.5), 3600.0, 86400.0)
    asked = Rollout("0" * 16, 4, "k4", desk.DIGEST, Strategy.CANARY, plan, RolloutState.WAITING, now(), now())
    record_rollout(settings, asked)
    new = write_vintage(settings, bars(desk.DAYS[:-1], desk.NAMES), None, {"source": "s", "quarantined": 0})
    raise_alert(settings, kind="vintage_blocked", subject=new.data_version, message="it ends earlier")
    raise_alert(settings, kind="leak_found", subject="f", message="a leak")
    found = overview(settings)
    assert [(each.kind, each.name) for each in found.work] == [("rollout", "4"), ("experiment", "orders")]
    assert found.work[0].said == "canary of version 4: waiting"
    assert [(each.part, each.name) for each in found.waiting] == [
        (Part.DATA, new.data_version),
        (Part.EXPERIMENTS, "costs"),
    ]
    assert {each.kind for each in found.alerts} == {"vintage_blocked", "leak_found"}
    assert [each.said for each in concerns(found) if each.part is Part.ALERTS] == [
        "1 critical alert is open",
        "1 warning alert is open",
    ]
    approve(settings, new.data_version, "the index changed", "ann")
    assert [each.name for each in overview(settings).waiting] == ["costs"]
    assert found.bars is not None and found.bars.data_version == old.data_version


def test_many_vintages_and_days_are_no_burden(settings: Settings) -> None:
    """A champion that followed nine others is told with the one before it."""
    desk.publish_bars(settings, pd.bdate_range("2026-01-05", periods=5))
    for version in range(1, 11):
        desk.serve(settings, version)
    champion = overview(settings).champion
    assert champion is not None and (champion.version, champion.previous) == (10, 9)
