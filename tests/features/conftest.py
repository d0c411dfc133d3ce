"""One awkward market for the comparisons with Qlib."""

import pytest

from tests.features.market import awkward_bars
from tests.features.parity import Market, market_of


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Gaps, late listings, an early end, flat stretches, zero volume, ties and a split."""
    return market_of(tmp_path_factory.mktemp("market"), awkward_bars(instruments=12))
