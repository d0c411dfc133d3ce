"""Features in the API: sets, stored versions, values, the list of indicators, and a computation that is a DAG run."""

from collections.abc import Iterator
from typing import Any

import pytest

from mlops_tasks.features.store import FeatureStore
from tests.overview import desk
from tests.plugins.api_server import Airflow
from tests.plugins.desk import Day

FEATURES = "/mlops/v1/features"
PAGES = "/mlops/ui/data/features"
SPAN = {"first": str(desk.DAYS[0].date()), "last": str(desk.LAST)}


@pytest.fixture(scope="module")
def version(airflow: Airflow, day: Day) -> Iterator[str]:
    """Features of the vintage in use."""
    yield FeatureStore(airflow.settings).compute(day.vintage, "anomalies").feature_version


def get(airflow: Airflow, path: str, **asked: Any) -> Any:
    with airflow.client("viewer") as viewer:
        return viewer.get(f"{FEATURES}/{path}", params=asked).raise_for_status().json()


def test_sets_and_indicators_are_told(airflow: Airflow) -> None:
    """Each set with its columns; the catalogue with the limits of its parameters, and the configured list."""
    sets = {each["name"]: each for each in get(airflow, "sets")["sets"]}
    assert sets["alpha158"]["is_default"] and sets["technical"]["columns"] == 88
    columns = get(airflow, "sets/alpha158")["columns"]
    assert len(columns) == 158 and columns[0]["expression"] and "open" in columns[0]["inputs"]
    told = get(airflow, "indicators")
    (rsi,) = [each for each in told["indicators"] if each["name"] == "rsi"]
    (window,) = rsi["parameters"]
    assert (window["name"], window["type"], window["default"], window["low"]) == ("window", "int", 14, 1)
    assert len(told["indicators"]) == 44 and len(told["configured"]) >= 44


def test_stored_versions_and_their_values_are_told(airflow: Airflow, day: Day, version: str) -> None:
    """By set, with statistics; values of some instruments and columns, in order."""
    (listed,) = get(airflow, "versions", feature_set="anomalies")["versions"]
    assert (listed["feature_version"], listed["in_use"], listed["rows"]) == (version, True, 100)
    shown = get(airflow, f"versions/{version}")
    name = shown["statistics"][0]["name"]
    assert shown["statistics"][0]["rows"] == 100 and len(shown["statistics"]) == shown["columns"]
    found = get(airflow, f"versions/{version}/values", instrument=["S001", "S000"], column=name, **SPAN)
    assert found["columns"] == [name] and len(found["rows"]) == 40
    assert [row["instrument"] for row in found["rows"][:2]] == ["S000", "S001"]


@pytest.mark.parametrize(("path", "status"), [
    ("sets/none", 404), ("sets/..%2Fx", 404), ("versions/0000000000000000", 404), ("versions/x", 422),
    ("versions/{version}/values", 422), ("versions/{version}/values?instrument=S000&first=2026-01-05", 422),
    ("versions/{version}/values?instrument=S000&first=2020-01-05&last=2026-01-05", 422),
    ("versions/{version}/values?instrument=S000&first=2026-01-05&last=2026-01-06&column=none", 422),
    ("versions/{version}/values?instrument=%00&first=2026-01-05&last=2026-01-06", 422),
    ("versions/0000000000000000/values?instrument=S000&first=2026-01-05&last=2026-01-06", 404),
    ("versions?feature_set=..", 422), ("versions?page=0", 422),
])  # fmt: skip
def test_what_is_not_there_or_too_much_is_refused(airflow: Airflow, version: str, path: str, status: int) -> None:
    """With a reason."""
    with airflow.client("viewer") as viewer:
        answer = viewer.get(f"{FEATURES}/{path.format(version=version)}")
    assert answer.status_code == status and answer.json()["detail"]


def test_a_computation_is_a_dag_run_under_the_users_name(airflow: Airflow, day: Day) -> None:
    """For who may operate; sets that are not there are refused."""
    asked = {"feature_set": "anomalies", "data_version": day.vintage.data_version}
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        assert viewer.post(f"{FEATURES}/computations", json=asked).status_code == 403
        started = admin.post(f"{FEATURES}/computations", json=asked)
        assert started.status_code == 202 and started.json()["dag_id"] == "compute_features"
        run = admin.get(f"/api/v2/dags/compute_features/dagRuns/{started.json()['run_id']}").json()
        assert (run["conf"], run["triggering_user_name"]) == (asked, "admin")
        for wrong in ({"feature_set": "none"}, {"feature_set": "../x"}, {"data_version": "x"}):
            assert admin.post(f"{FEATURES}/computations", json=asked | wrong).status_code == 422
        assert admin.post(f"{FEATURES}/computations", json={}).status_code == 202


def test_pages_show_sets_and_what_is_stored(airflow: Airflow, version: str) -> None:
    """A wrong set with its reason, each column with its expression; only who may operate gets the form."""
    own = airflow.settings.home / "feature_sets.yaml"
    own.write_text("bad:\n  version: 1\n  owner: <b>\n  description: x\n  factors: {X: 'Ref($close, -1)'}\n")
    try:
        with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
            page = viewer.get(f"{PAGES}").raise_for_status().text
            assert version in page and "reads the future" in page and "data-post" not in page
            assert "data-post" in admin.get(f"{PAGES}?page=2").text
            columns = viewer.get(f"{PAGES}/alpha158").raise_for_status().text
            assert "$close" in columns and columns.count("<tr>") == 159
            assert viewer.get(f"{PAGES}/none").status_code == 404
            assert viewer.get(f"{PAGES}/a%2F..%2Fb").status_code == 404
    finally:
        own.unlink()
