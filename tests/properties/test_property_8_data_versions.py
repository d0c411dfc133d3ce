"""Property 8 of the plan, data version tracking accuracy: a version is its content, and can be had again."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import DataSettings, Settings
from mlops_tasks.data.snapshots import checkout_vintage, pin_vintage
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.data.vintages import canonical_bars, load_vintage, own_spans, vintage_path
from tests.data.market import tree
from tests.properties.markets import DAYS, cells, markets, restated, written

DAY = pd.Timedelta(days=1)


def properties(examples: int) -> hypothesis_settings:
    return hypothesis_settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])


def version(folder: Path, bars: pd.DataFrame, universe: pd.DataFrame | None = None) -> str:
    """The data version of bars in any order."""
    return written(Settings(home=folder), canonical_bars(bars), universe).data_version


deliveries = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "owners": st.lists(st.integers(0, 3), min_size=5, max_size=5),
        "suffixes": st.lists(st.sampled_from([".csv", ".csv.gz", ".parquet"]), min_size=4, max_size=4),
        "parquet": st.fixed_dictionaries(
            {"compression": st.sampled_from(["snappy", "zstd", "gzip", None])},
            optional={"row_group_size": st.just(7), "use_dictionary": st.just(False)},
        ),
    }
)
"""How the same rows come: their order, which file each is in, what kinds of files these are."""


@properties(30)
@given(bars=markets(), delivery=deliveries)
def test_equal_content_is_an_equal_version(
    tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame, delivery: dict[str, Any]
) -> None:
    """However bars and spells are ordered, repeated (spells), split over files, written and compressed, the version is
    that of the bars themselves."""
    folder, spells = tmp_path_factory.mktemp("content"), own_spans(bars)
    shuffled = bars.sample(frac=1, random_state=delivery["seed"], ignore_index=True)
    for part, rows in shuffled.groupby(np.resize(delivery["owners"], len(shuffled))):
        path = folder / "source" / f"{part}{delivery['suffixes'][part]}"
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".parquet":
            rows.to_parquet(path, **delivery["parquet"])
        else:
            rows.to_csv(path, index=False)
    lines = [f"{name}\t{a.date()}\t{b.date()}\n" for name, a, b in spells.itertuples(index=False)]
    (folder / "members.txt").write_text("".join([*lines[::-1], *lines[:1]]))
    data = DataSettings(prices="raw", allowed_folders=(str(folder),))
    settings = Settings(home=folder, data=data)
    parsed = read_source(settings, str(folder / "source"), str(folder / "members.txt"))
    assert version(folder / "parsed", parsed.frame, parsed.universe) == version(folder / "itself", bars, spells)


@properties(30)
@given(bars=markets(), cell=cells)
def test_any_changed_cell_is_another_version(
    tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame, cell: tuple[int, str]
) -> None:
    """One changed bit of any field of any row, or a value that became known, changes the version; the digests of other
    years stay, and taking the change back gives the first version again."""
    folder = tmp_path_factory.mktemp("cells")
    row, field = cell[0] % len(bars), cell[1]
    other = restated(bars, row, field)
    before, after = (written(Settings(home=folder), each) for each in (bars, other))
    assert before.data_version != after.data_version
    years = {year for year, digest in before.manifest["years"].items() if after.manifest["years"][year] != digest}
    assert years == {str(bars.loc[row, DATETIME].year)}
    other.loc[row, field] = bars.loc[row, field]
    assert version(folder, other) == before.data_version


@properties(30)
@given(bars=markets(), row=st.integers(0, 10**6))
def test_any_changed_key_is_another_version(
    tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame, row: int
) -> None:
    """A row that is gone, came, moved to another day or to another instrument, and an instrument of another name,
    change the version of the bars in one universe."""
    folder, spells = tmp_path_factory.mktemp("keys"), own_spans(bars)
    row %= len(bars)
    name, day = bars.loc[row, INSTRUMENT], bars.loc[row, DATETIME]
    moved, handed, late = bars.copy(), bars.copy(), bars.loc[[row]].assign(**{DATETIME: bars[DATETIME].max() + DAY})
    moved.loc[row, DATETIME] = day + (DAYS[-1] - DAYS[0])
    handed.loc[row, INSTRUMENT] = "OTHER"
    changed = [
        moved,
        handed,
        pd.concat([bars, late]),
        bars.replace({INSTRUMENT: {name: name + "X"}}),
        *([bars.drop(index=row)] if len(bars) > 1 else []),
    ]
    versions = [version(folder, each, spells) for each in [bars, *changed]]
    assert len(set(versions)) == len(versions)


@properties(20)
@given(bars=markets(), spell=st.integers(0, 10**6), days=st.integers(1, 400))
def test_any_changed_spell_is_another_version(
    tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame, spell: int, days: int
) -> None:
    """A membership spell that begins or ends on another day, is gone, came or is another instrument's changes the
    version of the same bars."""
    folder, spells = tmp_path_factory.mktemp("spells"), own_spans(bars)
    spell %= len(spells)
    earlier, later, renamed = spells.copy(), spells.copy(), spells.copy()
    earlier.loc[spell, FIRST_DATE] -= days * DAY
    later.loc[spell, LAST_DATE] += days * DAY
    renamed.loc[spell, INSTRUMENT] = "OTHER"
    again = spells.loc[[spell]].assign(**{FIRST_DATE: DAYS[-1] + days * DAY, LAST_DATE: DAYS[-1] + days * DAY})
    universes = [spells, earlier, later, renamed, pd.concat([spells, again])]
    versions = {version(folder, bars, universe) for universe in [*universes, spells.drop(index=spell)]}
    assert len(versions) == len(universes) + 1


@properties(20)
@given(bars=markets(), cut=st.integers(0, 24))
def test_a_later_vintage_holds_the_earlier_ones(
    tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame, cut: int
) -> None:
    """The bars up to a day, taken from a vintage with more days, have the version that they had on that day; what
    comes back from a vintage has its version."""
    settings = Settings(home=tmp_path_factory.mktemp("prefixes"))
    vintage, earlier = written(settings, bars), bars[bars[DATETIME] <= DAYS[cut]].reset_index(drop=True)
    assert version(settings.home / "again", vintage.bars()) == vintage.data_version
    if len(earlier):
        assert version(settings.home, vintage.bars(end=DAYS[cut])) == version(settings.home / "then", earlier)


@properties(4)
@given(bars=markets(), cuts=st.sets(st.integers(0, 23), max_size=2), cell=cells, torn=st.booleans())
def test_every_earlier_version_can_be_had_again(
    tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame, cuts: set[int], cell: tuple[int, str], torn: bool
) -> None:
    """A vintage whose folder, or a file of it, is gone comes back byte for byte and with the version that its content
    has, whatever vintages were pinned after it."""
    settings = Settings(home=tmp_path_factory.mktemp("pinned"))
    steps = [bars[bars[DATETIME] <= DAYS[cut]].reset_index(drop=True) for cut in sorted(cuts)]
    steps = [*(step for step in steps if len(step)), bars, restated(bars, cell[0] % len(bars), cell[1])]
    content = {}
    for step in steps:
        vintage = written(settings, step)
        pin_vintage(settings, vintage.data_version)
        content[vintage.data_version] = tree(vintage.path)
    for data_version in content:
        path = vintage_path(settings, data_version)
        if torn:
            next(path.glob("bars/*")).unlink()
        else:
            shutil.rmtree(path)
    for data_version, files in content.items():
        back = checkout_vintage(settings, data_version)
        assert tree(back.path) == files
        assert version(settings.home / "again", back.bars(), back.members()) == data_version
        assert load_vintage(settings, data_version).rows == len(back.bars())
