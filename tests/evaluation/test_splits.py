"""Splits: what purging, embargo and combinations promise, for any calendar."""

from math import comb

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlops_tasks.errors import ConfigError
from mlops_tasks.evaluation.splits import CombinatorialPurged, Gap, Split, WalkForward, backtest_paths

gaps = st.builds(Gap, horizon=st.integers(1, 10), embargo_days=st.integers(0, 10))
walks = st.builds(
    WalkForward,
    train_days=st.integers(1, 60),
    test_days=st.integers(1, 40),
    valid_days=st.integers(0, 20),
    expanding=st.booleans(),
    gap=gaps,
)


def label_span(day: int, gap: Gap) -> set[int]:
    """The days of which an observation's score or label knows: the label ends with the close of t + 1 + h."""
    return set(range(day, day + gap.horizon + 2))


def assert_apart(first: np.ndarray, second: np.ndarray, gap: Gap) -> None:
    """No span of one set meets a span of the other, and the embargo lies between them."""
    spans = [set().union(*(label_span(int(day), gap) for day in days)) for days in (first, second)]
    assert not spans[0] & spans[1]
    if len(first) and len(second):
        between = np.abs(first[:, None] - second[None, :]).min() - 1
        assert between >= gap.horizon + 1 + gap.embargo_days


def assert_purged(split: Split, gap: Gap) -> None:
    for one, other in ((split.train, split.valid), (split.train, split.test), (split.valid, split.test)):
        assert_apart(one, other, gap)


@given(walks, st.integers(1, 250))
def test_walk_forward_tests_each_later_day_once_and_never_looks_ahead(walk: WalkForward, n_days: int) -> None:
    """Every day from the first test day on is tested once; what is learned from lies before it, with the gap."""
    assume(n_days > walk.first_test_day)
    splits = list(walk.splits(n_days))
    np.testing.assert_array_equal(
        np.concatenate([each.test for each in splits]), np.arange(walk.first_test_day, n_days)
    )
    for split in splits:
        assert_purged(split, walk.gap)
        assert len(split.valid) == walk.valid_days
        assert split.train.max() < split.test.min() and (split.valid < split.test.min()).all()
        assert len(split.train) == walk.train_days or (walk.expanding and len(split.train) > walk.train_days)
    assert len(splits[0].train) == walk.train_days
    assert all(each.train[0] == 0 for each in splits) or not walk.expanding


def test_walk_forward_wastes_no_day() -> None:
    """With horizon 1 two days are purged before each test: those whose labels reach into it."""
    (first, second) = WalkForward(5, 3).splits(12)
    assert first.train.tolist() == [0, 1, 2, 3, 4] and first.test.tolist() == [7, 8, 9]
    assert second.train.tolist() == [*range(8)] and second.test.tolist() == [10, 11]
    rolling = list(WalkForward(5, 3, valid_days=2, expanding=False).splits(16))
    assert [each.train.tolist() for each in rolling] == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]
    assert [each.valid.tolist() for each in rolling] == [[7, 8], [10, 11]]


@given(st.data(), st.integers(2, 7), gaps, st.integers(0, 10))
def test_combinatorial_splits_are_purged_and_test_each_day_equally_often(
    data: st.DataObject, groups: int, gap: Gap, valid_days: int
) -> None:
    """C(N, k) splits; each day is tested in C(N-1, k-1) of them and lies in exactly one set or the gap of each."""
    test_groups = data.draw(st.integers(1, groups - 1))
    n_days = data.draw(st.integers(groups * (2 * gap.days + 1), 250))
    cpcv = CombinatorialPurged(groups, test_groups, valid_days, gap)
    try:
        splits = list(cpcv.splits(n_days))
    except ConfigError as error:
        assert "leave no day to train on" in str(error)
        return
    assert len(splits) == cpcv.n_splits == comb(groups, test_groups)
    times = np.zeros(n_days, dtype=int)
    for split in splits:
        assert_purged(split, gap)
        assert len(split.valid) == valid_days and len(split.train) > 0
        times[split.test] += 1
        if not valid_days:
            left_out = set(range(n_days)) - {*split.train, *split.test}
            near = {d for d in left_out if np.abs(split.test - d).min() <= gap.days}
            assert left_out == near, "only days near a test day are left out"
    assert set(times) == {comb(groups - 1, test_groups - 1)}


@given(st.data(), st.integers(2, 7))
def test_paths_use_every_test_once_and_cover_every_day(data: st.DataObject, groups: int) -> None:
    """phi = C(N, k) k / N paths; together they use each (split, group) once, each of them has every day."""
    test_groups = data.draw(st.integers(1, groups - 1))
    cpcv = CombinatorialPurged(groups, test_groups)
    n_days = 12 * groups + data.draw(st.integers(0, groups))
    splits = list(cpcv.splits(n_days))
    paths = cpcv.paths()
    assert cpcv.n_paths * groups == cpcv.n_splits * test_groups
    assert paths.shape == (cpcv.n_paths, groups)
    used = {(int(split), group) for path in paths for group, split in enumerate(path)}
    assert used == {(i, group) for i, split in enumerate(splits) for group in split.groups}
    found = backtest_paths(
        cpcv, [np.stack([split.test, np.full(len(split.test), i)], axis=1) for i, split in enumerate(splits)], n_days
    )
    assert found.shape == (cpcv.n_paths, n_days, 2)
    np.testing.assert_array_equal(found[:, :, 0], np.tile(np.arange(n_days), (cpcv.n_paths, 1)))
    assert all(len({*found[:, day, 1]}) == cpcv.n_paths for day in range(n_days)), "each path has another split's test"


def test_the_books_example_has_fifteen_splits_and_five_paths() -> None:
    """Lopez de Prado (2018), section 12.4: six groups, two tested."""
    cpcv = CombinatorialPurged(6, 2)
    assert (cpcv.n_splits, cpcv.n_paths) == (15, 5)
    assert cpcv.paths()[0].tolist() == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gap(horizon=0), "horizon: 0 is less than 1"),
        (lambda: Gap(embargo_days=-1), "embargo_days"),
        (lambda: WalkForward(0, 1), "train_days"),
        (lambda: CombinatorialPurged(3, 3), "leave none to train on"),
        (lambda: list(WalkForward(20, 5).splits(22)), "leave none to test"),
        (lambda: list(CombinatorialPurged(5, 4, gap=Gap(20)).splits(50)), "leave no day to train on"),
    ],
)
def test_impossible_splits_are_refused(make, message: str) -> None:
    """The error names the setting and what to do."""
    with pytest.raises(ConfigError, match=message):
        make()
