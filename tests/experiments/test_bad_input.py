"""Bad input is refused or flagged, with what to do, on the way that a person or a client takes."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.experiments.lifecycle import running_traffic
from tests.experiments.designs import VALUES

BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
UNITS = [f"account-{number}" for number in range(60)]

Run = Callable[..., str]
Event = dict[str, Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`alphaops experiments ...` in an empty home whose experiments begin with 2024; returns what it says."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    monkeypatch.setattr("mlops_tasks.experiments.lifecycle.now", lambda: BEGAN)

    def run(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(["experiments", *arguments]) == status
        out = capsys.readouterr()
        return out.out + out.err

    run("layer", "accounts", "--unit", "account")
    return run


def create(run: Run, folder: Path, status: int = 0, **changes: Any) -> str:
    """What is said when a design is registered from its file."""
    file = folder / "design.yaml"
    file.write_text(yaml.safe_dump(VALUES | {"guards": []} | changes))
    return run("create", str(file), status=status)


def record(run: Run, folder: Path, events: Iterator[Event], status: int = 0) -> str:
    """What is said of events that are sent."""
    file = folder / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, events)))
    return run("record", "orders", str(file), status=status)


def events(folder: Path, value: Callable[[str, int], float | None], days: int = 35) -> Iterator[Event]:
    """One of each unit and day, by its arm and the day; None: none."""
    arms = running_traffic(Settings(home=folder)).assign("orders", UNITS)
    for day in range(days):
        at = (BEGAN + timedelta(days=day, hours=10)).isoformat()
        for row, unit in enumerate(UNITS):
            if (found := value(str(arms.arm_of(row)), day)) is not None:
                yield {"event_id": f"{day}-{row}", "unit": unit, "metric": "cost_bps", "value": found, "at": at}


def started(run: Run, folder: Path) -> None:
    """An experiment that runs."""
    create(run, folder, looks="weekly", planned_days=60)
    run("start", "orders", "--reason", "go")


def test_layers_do_not_overlap(run: Run, tmp_path: Path) -> None:
    """Two experiments that want more of a layer than there is: the second is refused."""
    create(run, tmp_path, share="0.6")
    said = create(run, tmp_path, status=1, name="other", share="0.6")
    assert "layer 'accounts' has no free range of 0.6; experiments hold orders 0 to 599999" in said
    assert "Wait for one to end, take a smaller share, or use another layer" in said
    assert "other" not in run("list")


def test_proportions_sum_to_one(run: Run, tmp_path: Path) -> None:
    """The shares and their sum are told; nothing is registered."""
    said = create(run, tmp_path, status=1, arms={"control": "0.5", "treatment": "0.4"})
    assert "the shares sum to 0.9, not to 1: 'control' 0.5, 'treatment' 0.4" in said
    assert "no experiment is registered" in run("list")


def test_a_metric_without_variance_is_flagged(run: Run, tmp_path: Path) -> None:
    """Both arms do the same: no verdict, and what may be wrong."""
    started(run, tmp_path)
    record(run, tmp_path, events(tmp_path, lambda arm, day: float(day)))
    said = run("analyze", "orders")
    assert "orders: wait, day 35 of 60" in said
    assert "the difference is 0 on all 35 days: a metric without variance cannot be tested" in said
    assert "see whether both arms serve the same model" in said


def test_an_arm_without_data_is_flagged(run: Run, tmp_path: Path) -> None:
    """It is named, with where to look; the missing units stop the reading of everything else."""
    started(run, tmp_path)
    draw = np.random.default_rng(1)
    record(run, tmp_path, events(tmp_path, lambda arm, day: draw.normal() if arm == "control" else None))
    said = run("analyze", "orders")
    assert "orders: distrust, day 0 of 60" in said and "find out where before reading any metric" in said
    assert "arm treatment has no event of cost_bps; see whether its units are served, whether their events" in said
    assert "alphaops experiments refused orders" in said


@pytest.mark.parametrize(
    ("aside", "said"),
    [
        (timedelta(days=20_000), "minutes ahead of this machine's clock; set the sender's clock and send it again"),
        (timedelta(days=-1), "when the experiment was not registered, not running"),
    ],
)
def test_a_clock_that_is_wrong_is_noticed(run: Run, tmp_path: Path, aside: timedelta, said: str) -> None:
    """Events of times that cannot be are refused, and kept with the reason; those of a right clock count."""
    started(run, tmp_path)
    right = {"event_id": "1", "unit": "account-1", "metric": "cost_bps", "value": 1.0, "at": BEGAN.isoformat()}
    wrong = {**right, "event_id": "2", "at": (BEGAN + aside).isoformat()}
    told = record(run, tmp_path, iter([right, wrong]), status=1)
    assert "1 new, 0 known already, 1 refused" in told and f"event 2: it is of {(BEGAN + aside):%F}" in told
    assert said in told and said in run("refused", "orders")
