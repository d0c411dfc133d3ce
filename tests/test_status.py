"""The status says what a person has to know, also before anything was published."""

from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.status import ALERT_WIDTH, SHOWN_ALERTS, render_status, status_info


def test_an_empty_home_says_how_to_begin(tmp_path: Path) -> None:
    """Nothing published, nothing to tell: one line with the command."""
    settings = Settings(home=tmp_path)
    assert status_info(settings) == {"vintage": None, "alerts": []}
    assert render_status(settings) == "no vintage has been published yet; run `make up`, or sync_market_data in Airflow"


def test_the_newest_alerts_are_shown_in_short(tmp_path: Path) -> None:
    """The newest first, each on one line of bounded length; the whole message is there for machines."""
    settings = Settings(home=tmp_path)
    messages = [f"vintage {number}:\n  " + "restated " * 50 for number in range(SHOWN_ALERTS + 1)]
    for message in messages:
        raise_alert(settings, kind="vintage_blocked", subject="v", message=message)
    lines = render_status(settings).splitlines()[1:]
    assert [line.split(": ")[1].split(" restated")[0] for line in lines] == ["vintage 3", "vintage 2", "vintage 1"]
    assert all(line.startswith("alert ") and len(line) < ALERT_WIDTH + 80 for line in lines)
    assert [alert["message"] for alert in status_info(settings)["alerts"]] == messages[:0:-1]
