"""A registered version is trained again from its record, with equal scores; what cannot be is refused with a reason."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_tasks.registry.replay.report import Part, Standing
from mlops_tasks.registry.replay.run import ReplayOrder, replay
from mlops_tasks.registry.replay.turns import Pace
from mlops_tasks.states import ReplayVerdict
from tests.registry.replayed import FAMILIES, Chained, chain

SOON = Pace(limit_s=300, gives_way=False)
SMALL = {"feature_set": "mine", "models": list(FAMILIES), "hyperparameters": dict(FAMILIES)}


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path) -> Iterator[Chained]:
    """A home with a version of each family."""
    with pytest.MonkeyPatch.context() as patch:
        yield chain(tmp_path_factory.mktemp("replayed") / "home", migrated_mlflow, patch, SMALL)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_version_of_the_chain_is_reproduced_to_the_last_bit(chained: Chained, model: str) -> None:
    """Its features, learning data, model files and scores, of a gradient booster, a linear model and a network."""
    report = replay(chained.settings, ReplayOrder(chained.versions[model], "tests", SOON))
    assert report.verdict is ReplayVerdict.EQUAL, "\n".join(report.lines())
    assert [(each.part, each.standing) for each in report.parts] == [(part, Standing.EQUAL) for part in Part]
    assert report.parts[0].values > 1000 and report.parts[3].values > 500
    assert report.environment == () and not any(chained.settings.replays_dir.glob("replay.*"))
