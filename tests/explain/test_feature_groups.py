"""Every feature of the shipped sets has a group, and every indicator of the catalogue a kind."""

from mlops_tasks.explain.feature_groups import OTHER, groups_of, indicator_kinds, indicators_of
from mlops_tasks.features.indicators.definitions import CATALOGUE
from mlops_tasks.features.sets import find_feature_set


def test_every_indicator_has_a_kind() -> None:
    """None is missing, and none is named that the catalogue does not have."""
    assert indicator_kinds().keys() == CATALOGUE.keys()


def test_groups_and_indicators_of_a_set_with_both() -> None:
    """Factors as in Alpha158; columns of MACD and RSI by their indicator."""
    mixed, technical = find_feature_set("alpha158_oscillators"), find_feature_set("technical")
    groups = groups_of(mixed)
    assert list(groups) == list(mixed.names) and OTHER not in groups.values()
    assert (groups["ROC5"], groups["RSI14"], groups["BOLL20_width"]) == ("momentum", "ta_momentum", "ta_volatility")
    indicators = indicators_of(technical)
    assert list(indicators) == list(technical.names)
    assert {column for column, name in indicators.items() if name == "MACD"} == {
        column for column in technical.names if column.startswith("MACD")
    }
    assert len({column for column in indicators if column.startswith("MACD")}) == 3
    assert "ROC5" not in indicators_of(mixed)


def test_own_factors_are_other_even_under_a_name_of_alpha158() -> None:
    """A name says nothing: what is computed does."""
    assert set(groups_of(find_feature_set("anomalies")).values()) == {OTHER}
    assert set(groups_of(find_feature_set("alpha158")).values()) == {
        *("k_bar", "price", "momentum", "volatility", "volume", "correlation")
    }
