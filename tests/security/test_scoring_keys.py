"""What a client's key opens of the scoring service, how often, for how long: a real server, a real database."""

import base64
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.day_scores import DayKey, DayScores
from mlops_tasks.serving.docs_page import BROWSED
from mlops_tasks.serving.gates import BusyError, Gate, Places
from mlops_tasks.serving.keys import Holder, Rates
from mlops_tasks.serving.score_table import ScoreTable
from mlops_tasks.state.predictions import PredictionFilter, predictions
from mlops_tasks.state.scoring_keys import KeyRequest, make_key, revoke_keys
from mlops_tasks.states import Scope
from tests.operation import without_state_database
from tests.registry.conftest import migrated_mlflow, vintage_template
from tests.registry.trainings import DAYS
from tests.security.served import Served, serve
from tests.security.test_scoring_load import SlowDisk
from tests.waiting import wait_for

__all__ = ["migrated_mlflow", "vintage_template"]

ROWS = {"rows": [{"instrument": "A", "features": {"KMID": 1.0}}]}
ROUTES = {
    "score": ("POST", "/v1/score", {}, 200),
    "score_rows": ("POST", "/v1/score", ROWS, 422),
    "health": ("GET", "/health", None, 200),
    "metrics": ("GET", "/metrics", None, 200),
    "ready": ("GET", "/ready", None, 200),
    "refresh": ("POST", "/v1/refresh", None, 200),
    **{page: ("GET", page, None, 200) for page in BROWSED},
}
"""What is asked, and what is answered to who may; the rows lack features."""
OPENS = {
    Scope.SCORE: {"score"},
    Scope.SCORE_ROWS: {"score_rows"},
    Scope.READ: {"health", "metrics", "ready", *BROWSED},
    Scope.ADMIN: set(ROUTES),
}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Served]:
    """One service for all tests of this module."""
    yield from serve(tmp_path_factory.mktemp("home"), migrated_mlflow, vintage_template)


def new_key(
    served: Served, name: str, *scopes: Scope, per_minute: int = 6000, days: float | None = None
) -> tuple[str, str]:
    """A key that the service knows, and its id."""
    valid_for = None if days is None else timedelta(days=days)
    request = KeyRequest(name, frozenset(scopes), per_minute, valid_for)
    key, known = make_key(served.operation.settings, request, "ann")
    refresh(served)
    return key, known.key_id


def refresh(served: Served) -> None:
    with served.client() as token:
        token.post("/v1/refresh").raise_for_status()


def client(served: Served, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(
        base_url=f"http://127.0.0.1:{served.port}", headers=headers, timeout=60, verify=trusted_authorities()
    )


@pytest.mark.parametrize("scope", list(Scope))
def test_a_key_opens_what_its_scope_says(served: Served, scope: Scope) -> None:
    """Every route by every scope; what is not opened is a 403 that names the scope, and nothing of it is done."""
    with client(served, new_key(served, f"only-{scope}", scope)[0]) as asking:
        for what, (method, path, body, allowed) in ROUTES.items():
            answer = asking.request(method, path, json=body)
            assert answer.status_code == (allowed if what in OPENS[scope] else 403), what
            if answer.status_code == 403:
                assert f"only-{scope} does not have the scope" in answer.json()["detail"]


def test_several_scopes_open_what_each_does(served: Served) -> None:
    """And not more."""
    with client(served, new_key(served, "two", Scope.SCORE, Scope.READ)[0]) as asking:
        opened = {
            what
            for what, (method, path, body, _) in ROUTES.items()
            if asking.request(method, path, json=body).status_code != 403
        }
    assert opened == OPENS[Scope.SCORE] | OPENS[Scope.READ]


def test_large_bodies_of_rows_need_their_scope_too(served: Served) -> None:
    """They are read by a thread, and refused before anything is scored."""
    rows = [{"instrument": f"A{i}", "features": {f"F{j}": 0.5 for j in range(60)}} for i in range(40)]
    with client(served, new_key(served, "by-name", Scope.SCORE)[0]) as asking:
        answer = asking.post("/v1/score", json={"rows": rows})
    assert answer.status_code == 403 and "score_rows" in answer.json()["detail"]


def test_what_is_no_valid_key_gets_what_none_gets(served: Served) -> None:
    """Wrong secret, unknown id, expired, revoked: the same 401 on every route, without a word of why."""
    key, key_id = new_key(served, "ended", Scope.ADMIN)
    expired, _ = new_key(served, "late", Scope.ADMIN, days=1e-9)
    with client(served, key) as asking:
        assert asking.get("/health").status_code == 200
    revoke_keys(served.operation.settings, "ended", key_id, "seen in a chat", "ann")
    refresh(served)
    prefix, key_id, secret = key.split("_", 2)
    head = f"{prefix}_{key_id}"
    wrong = ["x", key, expired, f"{head}_{secret[:-1]}", f"{head}_", f"alphaops_ffffffffffff_{secret}", secret, head]
    texts = set()
    for each in wrong:
        for method, path, body, _ in ROUTES.values():
            answer = httpx.request(
                method,
                f"http://127.0.0.1:{served.port}{path}",
                json=body,
                headers={"Authorization": f"Bearer {each}"},
                verify=trusted_authorities(),
            )
            assert answer.status_code == 401, (each, path)
            texts.add((path in BROWSED, answer.text))
    assert len(texts) == 2


def test_whether_the_process_lives_is_told_to_everybody(served: Served) -> None:
    """One word, the same to each, whatever key is shown; nothing else of that address is open."""
    address = f"http://127.0.0.1:{served.port}/live"
    expired, _ = new_key(served, "long-ago", Scope.READ, days=1e-9)
    slow, _ = new_key(served, "slow", Scope.SCORE, per_minute=1)
    ring = served.running.scoring.keys
    known, ring._keys = ring._keys, None
    for key in ("", "x", expired, slow, slow, slow):
        answer = httpx.get(address, headers={"Authorization": f"Bearer {key}"} if key else {})
        assert (answer.status_code, answer.text) == (200, '{"status":"alive"}')
    ring._keys = known
    assert httpx.post(address).status_code == httpx.get(f"{address}/").status_code == 401


def test_a_revoked_key_is_out_at_the_next_look(served: Served) -> None:
    """Without being told to; a second key of the client stays in."""
    (old, old_id), (new, _) = (new_key(served, "desk", Scope.READ) for _ in range(2))
    with client(served, old) as before, client(served, new) as after:
        assert before.get("/health").status_code == after.get("/health").status_code == 200
        revoke_keys(served.operation.settings, "desk", old_id, "moved", "ann")
        wait_for(lambda: before.get("/health").status_code == 401)
        assert after.get("/health").status_code == 200


def test_a_revoked_key_is_out_while_a_model_is_loaded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are looked at beside."""
    key, key_id = new_key(served, "meanwhile", Scope.READ)
    go, waits = threading.Event(), threading.Event()

    def load_for_long() -> None:
        waits.set()
        go.wait(60)

    with client(served, key) as asking:
        assert asking.get("/health").status_code == 200
        monkeypatch.setattr(served.running.scoring.slots, "follow", load_for_long)
        assert waits.wait(30)
        try:
            revoke_keys(served.operation.settings, "meanwhile", key_id, "moved", "ann")
            wait_for(lambda: asking.get("/health").status_code == 401)
        finally:
            go.set()


def test_a_key_that_asks_too_often_waits_and_others_do_not(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 says how long; two keys of a name share the rate; the client obeys and gets its answer."""
    (first, _), (second, _) = (new_key(served, "often", Scope.SCORE, per_minute=60) for _ in range(2))
    other, _ = new_key(served, "seldom", Scope.SCORE, per_minute=60)
    with client(served, first) as one, client(served, second) as two, client(served, other) as third:
        answers = [asking.post("/v1/score", json={}) for _ in range(8) for asking in (one, two)]
        limited = [each for each in answers if each.status_code == 429]
        assert 10 <= len(answers) - len(limited) <= 14, "ten seconds' worth of sixty a minute, and some that came since"
        assert {each.headers["retry-after"] for each in limited} == {"1"}
        assert limited[0].json()["detail"] == "the key of often may send 60 requests a minute"
        assert third.post("/v1/score", json={}).status_code == 200
    assert served.metric('alphaops_limited_total{key="often"}') == len(limited)
    assert served.metric('alphaops_key_requests_total{key="often"}') == len(answers)
    monkeypatch.setenv("MLOPS_SCORING_TOKEN", first)
    with ScoringClient(served.operation.settings) as waiting:
        assert waiting.score()["date"] == "2020-06-30"


def test_the_rate_is_what_the_key_says() -> None:
    """Over any time no more than its permits, and all of them for who asks steadily; an admin has no rate."""
    moment = 0.0
    rates = Rates(lambda: moment)
    holder = Holder("desk", frozenset({Scope.SCORE}), 120)
    assert [rates.wait_s(holder) for _ in range(20)] == [0.0] * 20
    assert rates.wait_s(holder) == pytest.approx(0.5)
    asked = 0
    for _ in range(600):
        moment += 0.1
        asked += rates.wait_s(holder) == 0
    assert asked == pytest.approx(120, abs=1)
    assert not any(rates.wait_s(Holder("boss", frozenset({Scope.ADMIN}), 1)) for _ in range(100))
    slow = Holder("slow", frozenset({Scope.SCORE}), 1)
    assert rates.wait_s(slow) == 0 and rates.wait_s(slow) == pytest.approx(60)


def test_a_key_has_a_place_however_few_there_are() -> None:
    """A share of less than one place would shut its holder out for good; an admin may take all of them."""
    desk, boss = Holder("desk", frozenset({Scope.SCORE})), Holder("boss", frozenset({Scope.ADMIN}))
    assert [Places(limit, 0.5).of(desk) for limit in (1, 2, 3, 4)] == [1, 1, 1, 2]
    assert Places(4, 0.5).of(boss) == 4


def test_all_keys_together_have_no_more_places_than_there_are() -> None:
    """However small the share of each is: of requests under way, and of dates that are being loaded."""
    refused = Counter("refused", "Refused.", ["kind"], registry=CollectorRegistry())
    first, second, third = (Holder(name, frozenset({Scope.SCORE})) for name in ("a", "b", "c"))
    gate = Gate("kind", Places(2, 0.5), refused)
    with gate.passing(first), gate.passing(second), pytest.raises(BusyError, match="0 of them of this key"):
        gate.passing(third).__enter__()
    gate.passing(third).__enter__()
    days, go = DayScores(4, Places(2, 0.5), refused), threading.Event()

    def table() -> ScoreTable:
        go.wait(60)
        return ScoreTable([], [])

    def ask(holder: Holder, day: int) -> None:
        days.ask(DayKey("m", "f", DAYS[day].date()), table, newest=False, holder=holder)

    ask(first, 1)
    ask(second, 2)
    with pytest.raises(BusyError, match="2 dates are being loaded already, 0 of them for this key"):
        ask(third, 3)
    go.set()
    days.stop()


def test_one_key_leaves_places_to_the_others(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two places for dates that are not in memory, and of two for large bodies, a key takes one."""
    greedy, _ = new_key(served, "greedy", Scope.SCORE)
    modest, _ = new_key(served, "modest", Scope.SCORE)
    disk = SlowDisk(served, monkeypatch)
    days = [{"date": str(day.date())} for day in DAYS[95:98]]
    shelf = served.running.scoring.day_scores._others
    with client(served, greedy) as one, client(served, modest) as two, ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.post, "/v1/score", json=days[0])
        wait_for(lambda: shelf.under_way() == ["greedy"])
        refused = one.post("/v1/score", json=days[1])
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        second = pool.submit(two.post, "/v1/score", json=days[2])
        wait_for(lambda: shelf.under_way() == ["greedy", "modest"])
        disk.go.set()
        assert first.result().status_code == second.result().status_code == 200
        head = (
            f"POST /v1/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {greedy}\r\nContent-Length: 900000\r\n\r\n{{"
        )
        held: list[socket.socket] = []
        large = b"{}" + b" " * 100_000

        def is_refused_beside_another() -> bool:
            held.append(served.connect(head.encode()))
            time.sleep(0.2)
            return one.post("/v1/score", content=large).status_code == 503

        wait_for(is_refused_beside_another)
        assert two.post("/v1/score", content=large).status_code == 200
        for each in held:
            each.close()


def test_the_log_of_predictions_names_the_key(served: Served) -> None:
    """And neither log nor metrics hold its secret."""
    key, _ = new_key(served, "night-batch", Scope.SCORE)
    with client(served, key) as asking:
        asking.post("/v1/score", json={}, headers={"X-Request-ID": "of-the-night"}).raise_for_status()

    def names() -> list[str]:
        found = predictions(served.operation.settings, PredictionFilter(), 1000)
        return [each.prediction.key_name for each in found if each.prediction.request_id == "of-the-night"]

    wait_for(lambda: names() == ["night-batch"])
    secret = key.split("_", 2)[2].encode()
    home = served.operation.settings.home
    for path in (*home.glob("state/*"), *home.glob("predictions/*/*")):
        assert secret not in path.read_bytes(), path
    with served.client() as token:
        assert secret not in token.get("/metrics").content


def test_the_documentation_takes_a_key_that_may_read(served: Served) -> None:
    """As a password, as it takes the token; a key that may not read is refused."""
    address = f"http://127.0.0.1:{served.port}/docs"
    for scope, status in ((Scope.READ, 200), (Scope.SCORE, 403)):
        key, _ = new_key(served, f"docs-{scope}", scope)
        basic = "Basic " + base64.b64encode(f"ann:{key}".encode()).decode()
        assert httpx.get(address, headers={"Authorization": basic}).status_code == status


def test_keys_stay_valid_while_the_database_is_away(served: Served) -> None:
    """Those that were read; a service that has read none says that it cannot know."""
    settings = served.operation.settings
    key, _ = new_key(served, "steady", Scope.SCORE, Scope.READ)
    with without_state_database(settings), client(served, key) as asking:
        wait_for(lambda: "the keys of clients cannot be read" in str(asking.get("/health").json()["errors"]))
        assert asking.post("/v1/score", json={}).status_code == 200
        ring = served.running.scoring.keys
        known, ring._keys = ring._keys, None
        answer = asking.get("/health")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert str(settings.home) not in answer.text
        ring._keys = known
