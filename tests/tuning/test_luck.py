"""A search finds skill where it is planted, and the gate refuses what one finds in noise; `bench_tune` in small."""

import pytest

from tests.planted import Shape, plant
from tests.tuning.luck import LIBRARY, Market

TRIALS = 10


@pytest.mark.parametrize("kind", ["linear", "threshold"])
def test_the_best_trial_does_on_untouched_days_at_least_what_defaults_do(tmp_path, kind):
    """Of a signal that is a twelfth of the noise, the tuned model keeps two thirds of what the oracle sees."""
    market = Market(plant(kind, Shape(days=250, instruments=40, snr=0.08), seed=100), tmp_path)
    study = market.search(TRIALS, seed=3)
    tuned, defaults = market.chosen(study), market.train(LIBRARY, seed=0)
    assert tuned.rank_ic("valid").mean() >= defaults.rank_ic("valid").mean()
    assert tuned.rank_ic("test").mean() > 0.65 * market.planted.oracle


def test_what_a_search_finds_in_noise_is_refused(tmp_path):
    """Three studies: with a champion or without one, the gate takes none of their best trials."""
    for number in range(3):
        market = Market(plant("noise", Shape(days=200, instruments=40), 2000 + number), tmp_path / str(number))
        study = market.search(TRIALS, number)
        assert market.decisions(study, market.chosen(study), market.train(LIBRARY, 0))[:2] == (False, False)
