"""What a training tells of its end while it runs: the best iteration so far, and the time until early stopping."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.cli import main
from mlops_tasks.cli.training import render_progress
from mlops_tasks.config import Settings
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.modeling.stopping import StoppingConfig
from tests.plugins.runs import Runs

PATIENCE, TOTAL = 5, 1000


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Payloads of the iterations of a training of 2 s an iteration, whose validation loss is best at 10."""
    payloads: list[Mapping[str, Any]] = []
    given = resolve_config("lightgbm", seed=1).model_copy(update={"stopping": StoppingConfig(patience=PATIENCE)})
    session = TrainingSession(
        given, links=Links(events=lambda kind, payload: payloads.append(payload) if kind == "iteration" else None)
    )
    monkeypatch.setattr(type(session._clock), "lap_seconds", property(lambda clock: 2.0))
    session.expect(TOTAL)
    for done in range(1, 16):
        if session.iteration(done, {"valid.loss": 1 + abs(done - 10) / 100}).stop:
            break
    return payloads


def test_the_time_left_knows_early_stopping(told: list[Mapping[str, Any]]) -> None:
    """While validation improves, patience is left; after the best iteration what is left of it, and 0 at the end."""
    assert [payload["eta_stop_s"] for payload in told] == [2.0 * PATIENCE] * 10 + [8.0, 6.0, 4.0, 2.0, 0.0]
    assert told[-1]["eta_s"] == 2.0 * (TOTAL - 15)
    assert told[-1]["best"] == {"iteration": 10, "metric": "valid.loss", "value": 1.0}
    assert "0:00:08 left unless validation improves, 0:32:58 left at most" in render_progress(told[10])


def test_near_the_last_iteration_nothing_is_left_but_that() -> None:
    """Patience beyond the last iteration is no time; without a validation metric early stopping is not foreseen."""
    payloads: list[Mapping[str, Any]] = []
    links = Links(events=lambda kind, payload: payloads.append(payload) if kind == "iteration" else None)
    session = TrainingSession(resolve_config("lightgbm", seed=1), links=links)
    session.expect(4)
    for done in range(1, 4):
        session.iteration(done, {"valid.loss": 1.0 / done})
    assert payloads[-1]["eta_stop_s"] == payloads[-1]["eta_s"]
    blind = TrainingSession(resolve_config("lightgbm", seed=1), links=links)
    for done in (1, 2, 3):
        blind.iteration(done, {"train.loss": 1.0})
    assert (payloads[-1]["eta_stop_s"], payloads[-1]["best"]) == (None, None)


def test_the_list_of_runs_says_when_who_and_what_was_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below a heading, the newest first: time, owner, the best iteration with its metric, run and state."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    runs = Runs(Settings(home=tmp_path), datetime(2026, 3, 2, 9, 30, tzinfo=UTC))
    done, waiting = runs.finished("lightgbm"), runs.open("linear")
    assert main(["training", "list"]) == 0
    head, newest, older = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "started (UTC)"
    places = [head.index(word) for word in ("started", "owner", "best iteration", "run ", "state")]
    first, second = (
        [line[start:end].strip() for start, end in zip(places, [*places[1:], None], strict=True)]
        for line in (newest, older)
    )
    assert first[:4] == ["2026-03-02 09:30", "daily", "-", waiting.run_id] and first[4].startswith("running")
    assert second[:4] == ["2026-03-02 09:30", "daily", "valid.loss 0.96099 at 22", done.run_id]
    assert second[4].startswith("finished")
