"""Registered versions in the API, inside a real Airflow API server: search, history, tags, who was live."""

from datetime import UTC, datetime

import pytest

from mlops_tasks.state.database import session
from mlops_tasks.state.model_history import Model, succeed
from mlops_tasks.state.model_index import RegisteredVersion, index_versions
from mlops_tasks.state.tables import VersionOrigin, VintageInput
from mlops_tasks.state.version_origins import record_origin
from tests.plugins.api_server import Airflow

VERSIONS = "/mlops/v1/versions"


def test_versions_are_found_tagged_and_told_of(airflow: Airflow) -> None:
    """By everybody who may see; tags are given under the user's name by who may command, and are found at once."""
    about = {"training_key": "k", "family": "linear", "data_version": "d", "feature_version": "f", "run_id": "r"}
    found = [
        RegisteredVersion(
            version=number,
            description="",
            registered_at=datetime(2024, 3, number, tzinfo=UTC),
            metrics={"test_rank_ic_mean": number / 100},
            tags={},
            **about,
        )
        for number in (1, 2)
    ]
    index_versions(airflow.settings, found)
    with session(airflow.settings) as active:
        succeed(active, Model("k", 1), "the gate", "ann")
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        page = viewer.get(VERSIONS, params={"sort": "metric.test_rank_ic_mean", "size": 1, "data_version": "d"}).json()
        assert (page["total"], [each["version"] for each in page["versions"]]) == (2, [2])
        given = {"name": "desk", "value": "asia"}
        assert viewer.post(f"{VERSIONS}/1/tags", json=given).status_code == 403
        assert admin.post(f"{VERSIONS}/1/tags", json=given).json()["tags"] == {"user.desk": "asia"}
        assert admin.post(f"{VERSIONS}/9/tags", json=given).status_code == 404
        asked = {"tag": "user.desk=asia", "metric": "test_rank_ic_mean=:0.01", "state": "champion"}
        assert [each["version"] for each in viewer.get(VERSIONS, params=asked).json()["versions"]] == [1]
        assert viewer.get(f"{VERSIONS}/live").json()["champions"][0]["version"] == 1
        assert viewer.get(f"{VERSIONS}/live", params={"day": "2020-01-01"}).json() == {"champions": []}
        (row,) = viewer.get(f"{VERSIONS}/1/history").json()["transitions"]
        assert (row["before"], row["after"], row["by"]) == ("challenger", "champion", "ann")
        assert viewer.get(f"{VERSIONS}/2/history").status_code == 404
        for asked, count in (
            ({"text": "%_.*[("}, 0),
            ({"until": "9999-12-31", "since": "0001-01-01"}, 2),
            ({"page": 1_000_000}, 2),
            ({"tag": "user.desk=asia=x"}, 0),
        ):
            assert viewer.get(VERSIONS, params={**asked, "data_version": "d"}).json()["total"] == count, asked
        for asked in ({"day": "9999-12-31"}, {"day": "0001-01-01"}, {"at": "0001-01-01T00:00:00+14:00"}):
            assert viewer.get(f"{VERSIONS}/live", params=asked).status_code == 200, asked


def test_versions_are_found_by_what_they_were_made_of(airflow: Airflow) -> None:
    """By a raw file and the beginning of a commit, together; 422 for a NUL character."""
    for version, data_version in ((1, "old"), (2, "new")):
        origin = VersionOrigin(
            version=version,
            training_key="k",
            data_version=data_version,
            feature_version="f",
            definition="",
            code="3ec27c8a",
            dirty=None,
            lock="",
            horizon=1,
            segments={"train": ["2020-01-01", "2020-03-24"]},
        )
        file = VintageInput(data_version=data_version, sha256=data_version, name=f"/data/{data_version}.csv", rows=1)
        record_origin(airflow.settings, origin, [file], [])
    with airflow.client("viewer") as viewer:
        found = viewer.get(f"{VERSIONS}/origins", params={"file": "new.csv", "code": "3ec"}).json()["origins"]
        assert [(each["version"], each["dirty"]) for each in found] == [(2, None)]
        assert viewer.get(f"{VERSIONS}/origins", params={"code": "4"}).json() == {"origins": []}
        assert viewer.get(f"{VERSIONS}/origins?factor=%00").status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        *("sort=x", "tag=x", "metric=x%3Dy", "metric=x%3Dnan:", "page=0", "page=-1", "page=x", "size=1001"),
        *("text=%00", f"text={'x' * 5000}", "state=x", "since=2024-13-01", "day=2024-13-01", "at=yesterday"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(airflow: Airflow, query: str) -> None:
    """422, with the reason."""
    route = f"{VERSIONS}/live" if query.startswith(("day", "at")) else VERSIONS
    with airflow.client("viewer") as viewer:
        answer = viewer.get(f"{route}?{query}")
    assert answer.status_code == 422 and answer.json()["detail"]
