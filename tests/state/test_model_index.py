"""The index of registered versions, on SQLite and on PostgreSQL."""

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.state import database, version_catalogue
from mlops_tasks.state.approvals import record_model_approval
from mlops_tasks.state.database import upgrade
from mlops_tasks.state.model_history import Model, record_transition, state_of
from mlops_tasks.state.model_index import (
    FoundVersion,
    RegisteredVersion,
    find_version,
    index_versions,
    indexed_versions,
    tag_version,
    tags_since,
)
from mlops_tasks.state.tables import ModelApproval
from mlops_tasks.state.version_search import SORTED_BY, MetricRange, VersionSearch, metric_range, search_versions
from mlops_tasks.states import ModelState
from tests import programs
from tests.postgres import DATABASES, settings_on
from tests.state.migrations import downgrade

START = datetime(2024, 1, 1, tzinfo=UTC)
VERSIONS = 60
IC = "test_rank_ic_mean"


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def registered(number: int) -> RegisteredVersion:
    """The same for the same number; a third has no metric."""
    draw = np.random.default_rng(number)
    family = str(draw.choice(["lightgbm", "linear", "patchtst"]))
    metrics = {IC: round(float(draw.normal(0.02, 0.02)), 2)} if number % 3 else {}
    return RegisteredVersion(
        version=number,
        training_key=f"k{number:015d}",
        family=family,
        data_version=f"d{draw.integers(4)}",
        feature_version="f",
        run_id=f"r{number}",
        description=f"{family} of 100% Größe" if number % 2 else "under_score",
        registered_at=START + timedelta(hours=int(draw.integers(240))),
        metrics=metrics,
        tags={"model": family, "leak_certificate": str(draw.choice(["passed", "failed"]))},
    )


Check = Callable[[FoundVersion], bool]
SEARCHES: list[tuple[VersionSearch, Check]] = [
    (VersionSearch(), lambda v: True),
    (VersionSearch(text="GRÖSSE"), lambda v: False),
    (VersionSearch(text="größe 100%"), lambda v: v.version % 2 == 1),
    (VersionSearch(text="under_score"), lambda v: v.version % 2 == 0),
    (VersionSearch(text="r_s"), lambda v: v.version % 2 == 0),
    (VersionSearch(text="passed"), lambda v: v.tags["leak_certificate"] == "passed"),
    (VersionSearch(family="linear"), lambda v: v.family == "linear"),
    (VersionSearch(state=ModelState.REJECTED), lambda v: v.version % 5 == 0),
    (VersionSearch(data_version="d1"), lambda v: v.data_version == "d1"),
    (
        VersionSearch(tags={"leak_certificate": "passed", "model": "linear"}),
        lambda v: (v.tags["leak_certificate"], v.family) == ("passed", "linear"),
    ),
    (VersionSearch(metrics=(MetricRange(IC, 0.02),)), lambda v: v.metrics.get(IC, -1) >= 0.02),
    (VersionSearch(metrics=(MetricRange(IC, 0.0, 0.03),)), lambda v: 0 <= v.metrics.get(IC, -1) <= 0.03),
    (
        VersionSearch(since=date(2024, 1, 3), until=date(2024, 1, 5)),
        lambda v: date(2024, 1, 3) <= v.registered_at.date() <= date(2024, 1, 5),
    ),
]


def test_a_search_finds_what_a_look_at_every_version_finds(settings: Settings) -> None:
    """Whatever is asked, in the order that is asked for, page by page; equal ones the newest first."""
    index_versions(settings, [registered(number) for number in range(1, VERSIONS + 1)])
    for number in range(5, VERSIONS + 1, 5):
        record_transition(settings, Model(f"k{number:015d}", number), ModelState.REJECTED, "rule skill")
    everything = [find_version(settings, number) for number in range(VERSIONS, 0, -1)]
    keys: dict[str, Callable[[FoundVersion], object]] = {
        "version": lambda v: v.version,
        "registered_at": lambda v: v.registered_at,
        "family": lambda v: v.family,
        "state": lambda v: v.state.value,
    }
    orders = list(itertools.product(keys, (False, True)))
    asked_for = [(SEARCHES[0], *order) for order in orders]
    asked_for += [(each, *order) for each, order in zip(SEARCHES[1:], itertools.cycle(orders), strict=False)]
    for (wanted, check), sort, ascending in asked_for:
        expected = sorted(filter(check, everything), key=keys[sort], reverse=not ascending)
        asked = {**vars(wanted), "sort": sort, "ascending": ascending, "size": 25}
        pages = [search_versions(settings, VersionSearch(**{**asked, "page": page})) for page in (1, 2, 3)]
        assert {page.total for page in pages} == {len(expected)}
        assert [each for page in pages for each in page.versions] == expected


NAMES = ("desk", "note", "model")
TEXTS = st.sampled_from(["asia", "Asia", "a b", "%", "_", "x%y", "größe", "ß", "\u0130", ".*", "\\"])
NUMBERS = st.one_of(st.sampled_from([0.0, -0.0, 0.01, 0.02, 1e300]), st.floats(-1, 1))
DAYS = st.one_of(st.dates(date(2024, 1, 1), date(2024, 1, 12)), st.sampled_from([date.min, date.max]))
VERSION = st.builds(
    RegisteredVersion,
    version=st.integers(1, 12),
    training_key=st.sampled_from(["k1", "k2"]),
    family=st.sampled_from(["linear", "lightgbm", ""]),
    data_version=st.sampled_from(["d1", "d2"]),
    feature_version=st.just("f"),
    run_id=st.just("r"),
    description=TEXTS,
    registered_at=st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 11), timezones=st.just(UTC)),
    metrics=st.dictionaries(st.sampled_from(["ic", "sharpe"]), NUMBERS),
    tags=st.dictionaries(st.sampled_from(NAMES), TEXTS),
)
BOUND = st.one_of(st.none(), NUMBERS)
SEARCH = st.builds(
    VersionSearch,
    text=st.one_of(st.just(""), TEXTS, st.lists(TEXTS, max_size=3).map(" ".join)),
    tags=st.one_of(st.just({}), st.dictionaries(st.sampled_from([*NAMES, "user.desk", "none"]), TEXTS, max_size=2)),
    family=st.sampled_from([None, None, "linear", "", "none"]),
    state=st.sampled_from([None, None, ModelState.CHALLENGER, ModelState.REJECTED, ModelState.CHAMPION]),
    data_version=st.sampled_from([None, None, "d1"]),
    metrics=st.lists(st.builds(MetricRange, st.sampled_from(["ic", "none"]), BOUND, BOUND), max_size=2).map(tuple),
    since=st.one_of(st.none(), DAYS),
    until=st.one_of(st.none(), DAYS),
    sort=st.sampled_from([*SORTED_BY, "metric.ic", "metric.none"]),
    ascending=st.booleans(),
    page=st.one_of(st.integers(1, 3), st.just(10**30)),
    size=st.integers(1, 5),
)
Change = tuple[str, object]
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.tuples(st.just("index"), st.lists(VERSION, max_size=6)),
    st.tuples(st.just("only"), st.sets(st.integers(1, 12))),
    st.tuples(st.just("tag"), st.tuples(st.integers(1, 12), st.one_of(st.just(""), TEXTS))),
    st.tuples(st.just("reject"), st.integers(1, 12)),
    st.tuples(st.just("search"), SEARCH),
)


@dataclass
class Expected:
    """What is known of the versions, held in plain dicts and looked at one by one."""

    versions: dict[int, RegisteredVersion] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)
    rejected: set[int] = field(default_factory=set)

    def told(self) -> list[FoundVersion]:
        """All of them, the newest first."""
        return [self._found(each) for _, each in sorted(self.versions.items(), reverse=True)]

    def search(self, wanted: VersionSearch) -> tuple[int, list[FoundVersion]]:
        """Each condition as the documentation states it."""
        found = [each for each in self.told() if self._meets(each, wanted)]
        if wanted.sort.startswith("metric."):
            name = wanted.sort.removeprefix("metric.")
            having = [each for each in found if name in each.metrics]
            having.sort(key=lambda each: each.metrics[name], reverse=not wanted.ascending)
            found = having + [each for each in found if name not in each.metrics]
        else:
            found.sort(key=lambda each: getattr(each, wanted.sort), reverse=not wanted.ascending)
        first = (wanted.page - 1) * wanted.size
        return len(found), found[first : first + wanted.size]

    def _found(self, version: RegisteredVersion) -> FoundVersion:
        own = self.tags.get(version.version)
        state = ModelState.REJECTED if version.version in self.rejected else ModelState.CHALLENGER
        return FoundVersion(
            **{**vars(version), "tags": {**version.tags, **({"user.desk": own} if own else {})}}, state=state
        )

    def _meets(self, each: FoundVersion, wanted: VersionSearch) -> bool:
        said = [str(each.version), each.training_key, each.family, each.data_version, each.feature_version]
        said += [each.run_id, each.description, *each.tags, *each.tags.values()]
        day = each.registered_at.date()
        return (
            all(any(word in text.lower() for text in said) for word in wanted.text.lower().split())
            and all(each.tags.get(name) == value for name, value in wanted.tags.items())
            and wanted.family in (None, each.family)
            and wanted.state in (None, each.state)
            and wanted.data_version in (None, each.data_version)
            and all(self._inside(each.metrics.get(asked.name), asked) for asked in wanted.metrics)
            and (wanted.since is None or wanted.since <= day)
            and (wanted.until is None or day <= wanted.until)
        )

    def _inside(self, value: float | None, asked: MetricRange) -> bool:
        return (
            value is not None
            and (asked.low is None or asked.low <= value)
            and (asked.high is None or value <= asked.high)
        )


def apply(settings: Settings, expected: Expected, kind: str, what: Any) -> None:
    """Make a change on both sides, or compare what both find."""
    if kind == "index":
        new = {each.version: each for each in what}
        index_versions(settings, list(new.values()))
        expected.versions |= new
    elif kind == "only":
        index_versions(settings, [], only=sorted(what))
        expected.versions = {number: each for number, each in expected.versions.items() if number in what}
    elif kind == "tag":
        number, value = what
        if number in expected.versions:
            tag_version(settings, number, "desk", value, "ann")
            expected.tags[number] = value
    elif kind == "reject":
        record_transition(settings, Model("k", what), ModelState.REJECTED, "rule skill")
        expected.rejected.add(what)
    else:
        page = search_versions(settings, what)
        assert (page.total, list(page.versions)) == expected.search(what)


@pytest.fixture
def expected() -> Expected:
    """Of all examples of a test, since nobody takes a tag's row or a transition out of the database."""
    return Expected()


@given_settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
@given(changes=st.lists(CHANGES, min_size=5, max_size=25), last=st.lists(SEARCH, min_size=1, max_size=5))
def test_a_search_finds_what_was_written_last(
    settings: Settings, expected: Expected, changes: list[Change], last: list[VersionSearch]
) -> None:
    """However the index came to be what it is, and whatever was searched for in between."""
    apply(settings, expected, "only", ())
    for kind, what in [*changes, *(("search", each) for each in last)]:
        apply(settings, expected, kind, what)


def test_another_database_at_the_same_address_is_read_anew(tmp_path: Path) -> None:
    """As after a backup was restored: even if as much has happened to both."""
    settings = Settings(home=tmp_path)
    for number in (1, 2):
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        index_versions(settings, [registered(number)])
        assert [each.version for each in search_versions(settings, VersionSearch()).versions] == [number]


def test_a_search_opens_a_settled_database_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is written its files say so; what another process writes is found at once."""
    settings = Settings(home=tmp_path)
    index_versions(settings, [registered(1)])
    opened: list[Settings] = []
    querying = version_catalogue.querying

    def counted(settings: Settings) -> AbstractContextManager[sa.Connection]:
        opened.append(settings)
        return querying(settings)

    monkeypatch.setattr(version_catalogue, "querying", counted)
    search_versions(settings, VersionSearch())
    search_versions(settings, VersionSearch())
    assert len(opened) == 2, "the last write is too new to tell a next one from it"
    time.sleep(0.25)
    for _ in range(3):
        assert search_versions(settings, VersionSearch()).total == 1
    assert len(opened) == 3
    tag = "from mlops_tasks.state.model_index import tag_version as t; t(load_settings(), 1, 'desk', 'asia', 'ann')"
    code = f"from mlops_tasks.config import load_settings; {tag}"
    programs.run(code, environment={**os.environ, "MLOPS_HOME": str(tmp_path)}, timeout=60).check_returncode()
    assert search_versions(settings, VersionSearch(tags={"user.desk": "asia"})).total == 1


def test_what_is_found_cannot_be_changed(tmp_path: Path) -> None:
    """The next search finds the same objects."""
    settings = Settings(home=tmp_path)
    index_versions(settings, [registered(1)])
    for _ in range(2):
        (found,) = search_versions(settings, VersionSearch()).versions
        assert found.tags == registered(1).tags and found.metrics == registered(1).metrics
        for known in (found.tags, found.metrics):
            with pytest.raises(TypeError):
                known["x"] = "y"  # type: ignore[index]


def test_states_in_the_index_follow_the_history(settings: Settings) -> None:
    """Also when versions are indexed and moved at the same moment."""
    upgrade(settings)
    versions = [registered(number) for number in (1, 2, 3)]
    model = Model(versions[0].training_key, 1)
    with ThreadPoolExecutor(2) as pool:
        for turn in range(12):
            index_versions(settings, versions)
            indexed = pool.submit(index_versions, settings, versions)
            reject = pool.submit(record_transition, settings, model, ModelState.REJECTED, f"turn {turn}")
            assert reject.result() and indexed.result() is None
            assert search_versions(settings, VersionSearch(state=ModelState.REJECTED)).total == 1
            record_model_approval(settings, approval(versions[0].training_key), 1)
            assert find_version(settings, 1).state == state_of(settings, model) == ModelState.CHALLENGER


def approval(key: str) -> ModelApproval:
    about = {"artefact_digest": "d", "basis": "person", "approved_by": "ann", "reason": "it is good"}
    return ModelApproval(training_key=key, **about)


def test_an_older_index_is_carried_over(settings: Settings) -> None:
    """An upgrade leaves every version to be found as it was."""
    upgrade(settings)
    downgrade(settings, "0016")
    at = datetime(2024, 3, 1, 12, 30, 0, 5, tzinfo=UTC)
    about = {"training_key": "k", "family": "linear", "data_version": "d", "feature_version": "f", "run_id": "r"}
    row = {"version": 7, **about, "description": "ä", "registered_at": at, "state": "rejected", "text": "7"}
    with database.engine(settings.state_database).connect() as connection, connection.begin():
        for name, values in (
            ("indexed_version", row),
            ("indexed_tag", {"version": 7, "name": "user.desk", "value": "asia"}),
            ("indexed_metric", {"version": 7, "name": "ic", "value": 0.1}),
        ):
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            own = {**values, "registered_at": at.replace(tzinfo=None)} if settings.state_url is None else values
            connection.execute(sa.insert(table), {key: own[key] for key in values})
    upgrade(settings)
    expected = RegisteredVersion(
        version=7, **about, description="ä", registered_at=at, metrics={"ic": 0.1}, tags={"user.desk": "asia"}
    )
    assert search_versions(settings, VersionSearch(text="asia")).versions == (
        FoundVersion(**vars(expected), state=ModelState.REJECTED),
    )


def test_versions_without_the_metric_come_last(settings: Settings) -> None:
    """In both directions."""
    index_versions(settings, [registered(number) for number in range(1, 21)])
    for ascending in (False, True):
        wanted = VersionSearch(sort=f"metric.{IC}", ascending=ascending)
        found = [each.metrics.get(IC) for each in search_versions(settings, wanted).versions]
        numbers = [each for each in found if each is not None]
        assert found == [*sorted(numbers, reverse=not ascending), *[None] * 6]


def test_people_tag_versions(settings: Settings) -> None:
    """By own names only; a tag is found, changed, taken away, and outlives an index that is made anew."""
    index_versions(settings, [registered(1), registered(2)])
    assert tag_version(settings, 1, "desk", "Asia", "ann").tags["user.desk"] == "Asia"
    tag_version(settings, 1, "digest", "mine", "ann")
    assert [each.version for each in search_versions(settings, VersionSearch(tags={"user.desk": "Asia"})).versions] == [
        1
    ]
    assert [each.version for each in search_versions(settings, VersionSearch(text="asia")).versions] == [1]
    tag_version(settings, 1, "desk", "", "bob")
    assert tags_since(settings, 0) == {1: {"user.desk": "", "user.digest": "mine"}}
    index_versions(settings, [registered(1)], only=[1])
    assert indexed_versions(settings) == {1}
    assert find_version(settings, 1).tags == {**registered(1).tags, "user.digest": "mine"}
    with pytest.raises(StoreError, match="no version 2"):
        tag_version(settings, 2, "desk", "Asia", "ann")
    wrong = (("a b", "x"), ("", "x"), ("a" * 65, "x"), ("desk", "x" * 501), ("a\n", "x"), ("a", "\0"), ("a", "\ud800"))
    for name, value in wrong:
        with pytest.raises(ConfigError, match="tag"):
            tag_version(settings, 1, name, value, "ann")


def test_what_cannot_be_searched_for(tmp_path: Path) -> None:
    """An order that is none, pages that are none, ranges that are none."""
    settings = Settings(home=tmp_path)
    for wanted, said in (
        (VersionSearch(sort="id"), "sort 'id': use one of version"),
        (VersionSearch(sort="metric.\0"), "NUL"),
        (VersionSearch(page=0), "pages begin at 1"),
        (VersionSearch(page=-1), "page -1 of 50: pages begin at 1"),
        (VersionSearch(size=1001), "1 to 1000 versions"),
        (VersionSearch(text="\0"), "NUL"),
        (VersionSearch(text="x" * 10_000_000), "10000000 characters to search for; 1000 are allowed"),
        (VersionSearch(tags={"x": "y" * 1001}), "1001 characters"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            search_versions(settings, wanted)
        assert len(str(caught.value)) < 500
    for bounds in ("", "1", "a:", "nan:", "1:2:3"):
        with pytest.raises(ConfigError, match="is no range"):
            metric_range("ic", bounds)
    assert metric_range("ic", "0.5:") == MetricRange("ic", 0.5)
