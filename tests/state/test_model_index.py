"""The index of registered versions, on SQLite and on PostgreSQL."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.state.model_history import Model, record_transition
from mlops_tasks.state.model_index import (
    FoundVersion,
    MetricRange,
    RegisteredVersion,
    VersionSearch,
    find_version,
    index_versions,
    indexed_versions,
    metric_range,
    search_versions,
    tag_version,
    tags_since,
)
from mlops_tasks.states import ModelState
from tests.postgres import DATABASES, settings_on

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
    for name, value in (("a b", "x"), ("", "x"), ("a" * 65, "x"), ("desk", "x" * 501), ("a\n", "x")):
        with pytest.raises(ConfigError, match="tag"):
            tag_version(settings, 1, name, value, "ann")


def test_what_cannot_be_searched_for(tmp_path: Path) -> None:
    """An order that is none, pages that are none, ranges that are none."""
    settings = Settings(home=tmp_path)
    for wanted in (VersionSearch(sort="id"), VersionSearch(page=0), VersionSearch(size=1001), VersionSearch(text="\0")):
        with pytest.raises(ConfigError):
            search_versions(settings, wanted)
    for bounds in ("", "1", "a:", "nan:", "1:2:3"):
        with pytest.raises(ConfigError, match="is no range"):
            metric_range("ic", bounds)
    assert metric_range("ic", "0.5:") == MetricRange("ic", 0.5)
