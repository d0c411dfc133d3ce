"""One awkward market in a Qlib store, for the comparisons with Qlib."""

from collections.abc import Callable, Mapping

import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.qlib_store import init_qlib, write_qlib_store
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.features.engine import evaluate, make_plan
from mlops_tasks.features.expressions import parse
from mlops_tasks.features.panel import build_panel
from tests.features.market import awkward_bars, make_vintage

Evaluate = Callable[[Mapping[str, str]], pd.DataFrame]


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Vintage]:
    """A vintage and its Qlib store."""
    settings = Settings(home=tmp_path_factory.mktemp("market"))
    vintage = make_vintage(settings.home, awkward_bars(instruments=12))
    write_qlib_store(settings, vintage)
    return settings, vintage


@pytest.fixture(scope="session")
def by_qlib(market: tuple[Settings, Vintage]) -> Evaluate:
    """Qlib's values of named expressions on the rows that have a bar."""
    settings, vintage = market

    def values(expressions: Mapping[str, str]) -> pd.DataFrame:
        from qlib.data import D

        init_qlib(settings, vintage.data_version)
        frame = D.features(D.instruments("all"), list(expressions.values()), freq="day")
        frame.columns = list(expressions)
        bars = vintage.bars(fields=())
        return frame.swaplevel().reindex(pd.MultiIndex.from_frame(bars)).sort_index()

    return values


@pytest.fixture(scope="session")
def by_engine(market: tuple[Settings, Vintage]) -> Evaluate:
    """The engine's values of named expressions on the same rows."""
    _, vintage = market

    def values(expressions: Mapping[str, str]) -> pd.DataFrame:
        plan = make_plan({name: parse(text) for name, text in expressions.items()})
        panel = build_panel(vintage.adjusted_bars(), vintage.calendar(), plan.fields)
        order = panel.bar_order()
        index = pd.MultiIndex.from_arrays([panel.calendar[panel.rows[order]], panel.instruments[panel.codes[order]]])
        return pd.DataFrame(evaluate(plan, panel, panel.positions(order), threads=2).T, index, list(expressions))

    return values
