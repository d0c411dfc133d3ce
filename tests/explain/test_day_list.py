"""Why names are at the top of a day, and what changed since the day before."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.errors import ExplanationError
from mlops_tasks.explain.day_list import Part, day_changes, day_reasons
from mlops_tasks.explain.explanation import Explanation, Method

FIRST, SECOND = pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")


def two_days() -> Explanation:
    """A moves up by feature x, B down by y, C is new, and D is gone."""
    rows = {
        (FIRST, "A"): (0.0, 1.0, 0.5),
        (FIRST, "B"): (2.0, 1.0, 0.0),
        (FIRST, "D"): (9.0, 0.0, 0.0),
        (SECOND, "A"): (4.0, 1.0, 0.25),
        (SECOND, "B"): (2.0, -3.0, 0.0),
        (SECOND, "C"): (-1.0, 0.0, 6.25),
    }
    index = pd.MultiIndex.from_tuples(list(rows), names=[DATETIME, INSTRUMENT])
    contributions = pd.DataFrame(list(rows.values()), index, ["x", "y", "z"])
    return Explanation(Method.TREES, contributions, 0.5, contributions.sum(axis=1) + 0.5)


def test_reasons_are_the_largest_contributions() -> None:
    """By size, with what is left over; equal scores in the order of the names."""
    found = day_reasons(two_days(), SECOND, names=2, parts=2)
    assert [(each.instrument, each.rank, each.score) for each in found.names] == [("A", 1, 5.75), ("C", 2, 5.75)]
    assert found.names[0].parts == (Part("x", 4.0), Part("y", 1.0))
    assert found.names[1].parts == (Part("z", 6.25), Part("x", -1.0))
    for each in found.names:
        assert found.base + sum(part.contribution for part in each.parts) + each.rest == each.score
    assert found.gap.largest == 0


def test_changes_are_differences_of_contributions() -> None:
    """They sum up to the change of the score; a name without a score before has none."""
    found = day_changes(two_days(), SECOND, names=3, parts=1)
    assert found.before == FIRST
    risen, new, fallen = found.names
    assert (risen.instrument, risen.rank, risen.rank_before) == ("A", 1, 3)
    assert (risen.parts, risen.rest) == ((Part("x", 4.0),), -0.25)
    assert risen.score_before is not None
    assert risen.score - risen.score_before == 3.75
    assert (new.instrument, new.rank_before, new.score_before, new.parts) == ("C", None, None, ())
    assert (fallen.rank_before, fallen.parts) == (2, (Part("y", -4.0),))
    assert [gap.largest for gap in found.gaps] == [0, 0]


def test_days_that_were_not_explained_are_refused() -> None:
    """The error says what to explain."""
    with pytest.raises(ExplanationError, match="no row of 2024-01-05 was explained"):
        day_reasons(two_days(), pd.Timestamp("2024-01-05"))
    with pytest.raises(ExplanationError, match="no day before 2024-01-01"):
        day_changes(two_days(), FIRST)


def test_names_may_be_asked_for() -> None:
    """In the order of their scores, with their ranks; one that is not there is refused."""
    found = day_reasons(two_days(), SECOND, ["B", "A"])
    assert [(each.instrument, each.rank) for each in found.names] == [("A", 1), ("B", 3)]
    assert [each.instrument for each in day_changes(two_days(), SECOND, ["B"]).names] == ["B"]
    with pytest.raises(ExplanationError, match="not among the 3 explained names of that day: D"):
        day_reasons(two_days(), SECOND, ["D", "A"])


def test_rest_is_what_was_left_out() -> None:
    """With more parts asked for than there are, nothing."""
    found = day_reasons(two_days(), FIRST, parts=9)
    assert all(each.rest == 0 and len(each.parts) == 3 for each in found.names)
    assert np.isfinite(found.base)


def by_another_model() -> Explanation:
    """The same names and days, of which it sees y and a feature w of its own."""
    rows = {
        (FIRST, "A"): (0.5, 2.0),
        (FIRST, "B"): (-1.0, 0.0),
        (FIRST, "D"): (0.0, 0.0),
        (SECOND, "A"): (1.5, -2.0),
        (SECOND, "B"): (0.0, 1.0),
        (SECOND, "C"): (1.0, 1.0),
    }
    index = pd.MultiIndex.from_tuples(list(rows), names=[DATETIME, INSTRUMENT])
    contributions = pd.DataFrame(list(rows.values()), index, ["y", "w"])
    return Explanation(Method.LINEAR, contributions, -0.25, contributions.sum(axis=1) - 0.25)


def test_a_change_of_model_is_told_from_changes_of_features() -> None:
    """Shapley's division between the two: half of what the features' change is worth to either model, half of what the
    model is worth on either day; with the base, all of it is the change of the score."""
    found = day_changes(two_days(), SECOND, names=3, parts=9, replaced=by_another_model())
    first, new, second = found.names
    assert (new.instrument, new.score_before, new.model) == ("C", None, None)
    assert first.instrument == "A" and first.model is not None
    assert (first.score_before, first.rank_before) == (2.25, 1)
    assert {part.feature: part.contribution for part in first.parts} == {"x": 2.0, "y": 0.5, "z": -0.125, "w": -2.0}
    # y: on the first day 1 against 0.5, on the second 1 against 1.5; w: nothing against 2, and against -2
    moved = {part.feature: part.contribution for part in first.model.parts}
    assert moved == {"x": 2.0, "y": 0.0, "z": 0.375, "w": 0.0}
    assert first.model.base == 0.75
    for each in (first, second):
        assert each.model is not None and each.score_before is not None
        parts = [*each.parts, *each.model.parts]
        total = sum(part.contribution for part in parts) + each.rest + each.model.rest + each.model.base
        assert total == pytest.approx(each.score - each.score_before, abs=1e-12)


def test_ranks_are_among_all_names_where_only_some_were_explained() -> None:
    """A model that takes long is explained for some names; their ranks are those of the whole day."""
    whole = two_days()
    some = whole.of_rows(np.asarray(whole.scores.index.get_level_values(INSTRUMENT).isin(["A", "B"])))
    found = day_changes(replace(some, ranked_among=whole.scores), SECOND, names=9)
    assert [(each.instrument, each.rank, each.rank_before) for each in found.names] == [("A", 1, 3), ("B", 3, 2)]
    with pytest.raises(ExplanationError, match="not among the 2 explained names of that day: C"):
        day_reasons(replace(some, ranked_among=whole.scores), SECOND, ["C"])
