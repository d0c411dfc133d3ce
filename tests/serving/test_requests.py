"""Requests to a scoring service that has a champion: a real server, a real registry, real features."""

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.windows import FloatArray
from mlops_tasks.registry.models import load_version
from mlops_tasks.serving.client import ScoringClient, scores_of
from tests.operation import make_champion
from tests.registry.conftest import Operation, new_home, new_operation
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec
from tests.serving.conftest import RunningService, scores_here


@dataclass(frozen=True)
class Served:
    """An operation whose champion is in service."""

    operation: Operation
    version: int


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Served]:
    """One service for all tests of this module: none of them changes anything."""
    with pytest.MonkeyPatch.context() as patch:
        operation = new_operation(new_home(tmp_path_factory.mktemp("home"), migrated_mlflow, patch), vintage_template)
        version = operation.register(Spec(key="a" * 16))
        make_champion(operation.settings, version)
        running = RunningService(operation.settings)
        with ScoringClient(operation.settings) as client:
            client.refresh()
        yield Served(operation, version)
        running.stop()


@pytest.fixture
def client(served: Served) -> Iterator[ScoringClient]:
    """A client of the running service."""
    with ScoringClient(served.operation.settings) as made:
        yield made


@pytest.fixture
def raw(client: ScoringClient) -> httpx.Client:
    """The client's own HTTP connection, for bodies that the client would not send."""
    return client._http


def test_all_instruments_of_the_newest_date(served: Served, client: ScoringClient) -> None:
    """An empty request scores every instrument of the newest date, equal to the artefact to the last bit."""
    answer = client.score()
    assert (answer["model_version"], answer["training_key"]) == (served.version, "a" * 16)
    assert answer["date"] == "2020-06-30"
    assert answer["data_version"] == served.operation.vintage.data_version
    assert scores_of(answer).to_dict() == scores_here(served.operation, served.version)
    assert answer["missing"] == []


def test_chosen_instruments_of_a_past_date(served: Served, client: ScoringClient) -> None:
    """The order of the request is kept, unknown names are listed, and a name given twice is scored once."""
    answer = client.score(["S003", "NOPE", "S001", "S003"], DAYS[100].date())
    expected = scores_here(served.operation, served.version, str(DAYS[100].date()))
    pairs = [(row["instrument"], row["score"]) for row in answer["scores"]]
    assert pairs == [("S003", expected["S003"]), ("S001", expected["S001"])]
    assert answer["missing"] == ["NOPE"]


def test_given_features_score_as_stored_ones(served: Served, raw: httpx.Client) -> None:
    """Rows and tables of features, null for NaN and in any order, give the scores of the stored features."""
    features = FeatureStore(served.operation.settings).load(served.operation.feature_version, start="2020-06-30")
    features = features.droplevel("datetime").iloc[:, ::-1]
    features.iloc[:5, :40] = np.nan
    expected = load_version(served.operation.settings, served.version).artefact.predict(features)
    values = features.astype(object).where(features.notna(), None)
    rows = [{"instrument": name, "features": dict(row)} for name, row in values.iterrows()]
    table = {
        "instruments": list(values.index),
        "feature_names": list(values.columns),
        "values": values.to_numpy().tolist(),
    }
    for body in ({"rows": rows}, {"table": table}):
        answer = raw.post("/v1/score", json=body).raise_for_status().json()
        assert scores_of(answer).to_dict() == expected.to_dict()
        assert answer["date"] is None


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"date": "2020-06-28"}, 404, "2020-06-28: not a trading day"),
        ({"date": "1980-01-01"}, 404, "whose newest is 2020-06-30"),
        ({"date": "yesterday"}, 422, "date: Input should be a valid date"),
        ({"date": "2020-06-30", "day": 1}, 422, "day: Extra inputs are not permitted"),
        ({"instruments": "S001"}, 422, "instruments: Input should be a valid"),
        ({"rows": []}, 422, "rows: List should have at least 1 item"),
        ({"rows": [{"instrument": "A", "features": {"KMID": 1.0}}]}, 422, "A: missing features KLEN"),
        ({"rows": [{"instrument": "A", "features": {"WHAT": 1.0}}]}, 422, "A: unknown features 'WHAT'"),
        ({"rows": [{"instrument": "A", "features": {"KMID": "x"}}]}, 422, "rows.0.features.KMID (A): Input should be"),
        ({"rows": [{"instrument": "A", "features": {}}], "date": "2020-06-30"}, 422, "give either instruments"),
        (
            {"table": {"instruments": ["A"], "feature_names": ["KMID"], "values": [[1, 2]]}},
            422,
            "the row of A has 2 values for 1 feature_names",
        ),
        (
            {"table": {"instruments": ["A", "B"], "feature_names": ["KMID"], "values": [[1]]}},
            422,
            "values has 1 rows for 2 instruments",
        ),
    ],
)
def test_bad_requests_name_what_is_wrong(raw: httpx.Client, body: dict[str, object], status: int, message: str) -> None:
    """The status is 404 or 422, and the message names the date, the field or the feature."""
    response = raw.post("/v1/score", json=body)
    assert response.status_code == status
    assert message in str(response.json()["detail"])


def test_a_body_that_is_no_json(raw: httpx.Client) -> None:
    """Broken JSON is the caller's error, not the server's."""
    response = raw.post("/v1/score", content=b"{")
    assert response.status_code == 422
    assert "Invalid JSON" in str(response.json()["detail"])


@pytest.mark.parametrize("header", [None, "Bearer wrong", "token-of-the-tests", "bearer token-of-the-tests"])
def test_nothing_is_said_without_the_token(raw: httpx.Client, header: str | None) -> None:
    """Every path asks for the token first, and says where it is, not what it is."""
    headers = {} if header is None else {"Authorization": header}
    for path in ("/health", "/metrics", "/v1/score", "/v1/refresh", "/v1/environment", "/docs", "/openapi.json", "/x"):
        response = httpx.get(f"{raw.base_url}{path}", headers=headers, verify=trusted_authorities())
        assert response.status_code == 401
        assert "secrets/scoring_token" in response.json()["detail"]
        assert "token-of-the-tests" not in response.text


def test_too_large_a_body_is_refused_unread(served: Served, raw: httpx.Client) -> None:
    """A body beyond the limit is answered before it is read."""
    connection = http.client.HTTPConnection("127.0.0.1", served.operation.settings.stack.scoring_port, timeout=10)
    connection.putrequest("POST", "/v1/score")
    connection.putheader("Authorization", raw.headers["Authorization"])
    connection.putheader("Content-Length", str(2**30))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_scores_are_finite_floats(client: ScoringClient) -> None:
    """What goes over the wire is finite."""
    assert np.isfinite(scores_of(client.score()).to_numpy()).all()


def test_a_score_that_is_no_number_is_no_answer(
    served: Served, raw: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of given features: the instrument is named, and nothing is counted as scored."""
    honest = ModelArtefact.predict_matrix

    def infinite(self: ModelArtefact, matrix: FloatArray) -> FloatArray:
        scores = honest(self, matrix).copy()
        scores[1] = np.inf
        return scores

    row = dict.fromkeys(load_version(served.operation.settings, served.version).artefact.feature_names, 0.5)
    before = metrics_of(raw)["alphaops_scored_rows_total"]
    monkeypatch.setattr(ModelArtefact, "predict_matrix", infinite)
    answer = raw.post("/v1/score", json={"rows": [{"instrument": name, "features": row} for name in ("A", "B", "C")]})
    assert answer.status_code == 422
    assert "the score of 'B' is not finite" in answer.json()["detail"]
    assert metrics_of(raw)["alphaops_scored_rows_total"] == before


def test_metrics_count_requests_rows_and_name_the_model(served: Served, raw: httpx.Client) -> None:
    """Prometheus sees requests by route and status, latencies, scored rows and the version in service; paths that a
    client makes up are one route, or it could make up as many series as it likes."""
    names = {
        'alphaops_requests_total{route="/v1/score",status="200"}': 1,
        'alphaops_requests_total{route="/v1/score",status="404"}': 1,
        'alphaops_requests_total{route="other",status="404"}': 1,
        'alphaops_request_seconds_count{route="/v1/score"}': 2,
        "alphaops_scored_rows_total": len(INSTRUMENTS),
    }
    before = metrics_of(raw)
    raw.post("/v1/score", json={})
    raw.post("/v1/score", json={"date": "1980-01-01"})
    raw.get("/made-up")
    after = metrics_of(raw)
    assert not any("made-up" in name for name in after)
    assert {name: after[name] - before.get(name, 0) for name in names} == names
    info = f'slot="blue",standing="champion",training_key="{"a" * 16}",version="{served.version}"'
    assert after[f"alphaops_model_info{{{info}}}"] == 1


def metrics_of(raw: httpx.Client) -> dict[str, float]:
    lines = [line for line in raw.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
