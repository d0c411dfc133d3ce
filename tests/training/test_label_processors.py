"""Ranks and z-scores of labels are Qlib's, to the last bit."""

import numpy as np
import pandas as pd
import pytest
from qlib.data.dataset.processor import CSRankNorm as QlibRankNorm
from qlib.data.dataset.processor import CSZScoreNorm as QlibZScoreNorm

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL
from mlops_tasks.modeling.label_processors import CSRankNorm, CSZScoreNorm


def labels(values: np.ndarray, days: np.ndarray) -> pd.DataFrame:
    """A learning frame of one label column."""
    dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, "D")
    index = pd.MultiIndex.from_arrays([dates, [f"I{n:04d}" for n in range(len(days))]], names=[DATETIME, INSTRUMENT])
    return pd.DataFrame({(LABEL, "LABEL0"): values.astype(np.float32)}, index)


def random_days(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Days of 1 to 700 values of sizes from 1e-15 to 1e15."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 700, 40)
    values = [rng.standard_normal(n) * 10.0 ** rng.integers(-15, 15) + rng.integers(-1, 2) for n in sizes]
    return np.concatenate(values), np.repeat(np.arange(40), sizes)


DAYS = {
    **{f"random {seed}": random_days(seed) for seed in range(4)},
    "one value, the same values, zeros of both signs": (
        np.array([0.5, 0.1, 0.1, 0.1, 0.0, -0.0, 0.0, -1.0]),
        np.array([0, 1, 1, 1, 2, 2, 2, 2]),
    ),
    "infinite values": (np.array([1.0, np.inf, 2.0, -np.inf, np.inf]), np.array([0, 0, 0, 1, 1])),
    "missing values": (np.array([1.0, np.nan, 2.0, np.nan, 3.0]), np.array([0, 0, 0, 1, 1])),
    "days that come again": (np.array([1.0, 2.0, 4.0, 3.0]), np.array([1, 0, 1, 0])),
}


@pytest.mark.parametrize("name", DAYS)
def test_scores_are_qlibs_to_the_last_bit(name):
    """Also where a day has no score, and where values are left to Qlib itself."""
    ours, qlibs = (kind(fields_group=LABEL)(labels(*DAYS[name])) for kind in (CSZScoreNorm, QlibZScoreNorm))
    a, b = (frame.to_numpy(np.float32)[:, 0] for frame in (ours, qlibs))
    pd.testing.assert_index_equal(ours.index, qlibs.index)
    assert ((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all()


@pytest.mark.parametrize("name", DAYS)
def test_ranks_are_qlibs_to_the_last_bit(name):
    """With ties, and where values are left to Qlib itself."""
    values, days = DAYS[name]
    frames = (labels(np.round(values, 1), days) for _ in range(2))
    ours, qlibs = (
        kind(fields_group=LABEL)(frame) for kind, frame in zip((CSRankNorm, QlibRankNorm), frames, strict=True)
    )
    pd.testing.assert_frame_equal(ours, qlibs, check_exact=True)


def test_several_columns_are_left_to_qlib():
    """A group of two labels is processed as Qlib does it."""
    frame = labels(*random_days(9))
    frame[(LABEL, "LABEL1")] = frame[(LABEL, "LABEL0")] * 2
    ours, qlibs = (kind(fields_group=LABEL)(frame.copy()) for kind in (CSZScoreNorm, QlibZScoreNorm))
    pd.testing.assert_frame_equal(ours, qlibs)
