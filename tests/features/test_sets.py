"""Feature sets: what YAML may say, what is told when it is wrong, and what makes two sets the same."""

from math import inf
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.indicators.specs import load_indicators
from mlops_tasks.features.sets import FeatureSet, check_feature_sets, feature_set_names, find_feature_set

HEAD = "  version: 1\n  owner: Desk A\n  description: Mine.\n"


def own_set(home: Path, body: str, name: str = "mine") -> FeatureSet:
    """The set of that name from a file in a home folder."""
    (home / "feature_sets.yaml").write_text(body)
    return find_feature_set(name, Settings(home=home))


def mine(home: Path, body: str) -> FeatureSet:
    """A set of the user's own with this body."""
    return own_set(home, f"mine:\n{HEAD}{body}")


def test_every_set_that_is_shipped_can_be_computed_and_tells_what_it_is() -> None:
    """Names are unique, owners and descriptions are there."""
    assert check_feature_sets() == {}
    assert {"alpha158", "alpha360", "technical", "alpha158_oscillators", "anomalies"} <= set(feature_set_names())
    for name in feature_set_names():
        definition = find_feature_set(name)
        assert (definition.name, len(set(definition.names))) == (name, len(definition.names))
        assert definition.owner
        assert definition.description
    assert find_feature_set("technical").indicators == load_indicators()
    assert find_feature_set("alpha158").expressions == alpha158()


def test_a_set_of_ones_own_is_factors_indicators_and_other_sets(tmp_path: Path) -> None:
    """Expressions come first, in the order of their sets, then the indicators; what is excluded is left out."""
    definition = mine(
        tmp_path,
        "  include: [alpha158, technical]\n"
        "  exclude: ['[!M]*', MAX*, MIN*, MASS25, MFI14, MA5]\n"
        "  factors:\n    GAP: $open/Ref($close, 1)-1\n"
        "  indicators:\n    - {indicator: rsi, window: 7, name: RSI7}\n"
        "    - {indicator: bollinger, name: BB, columns: [BB_width]}\n",
    )
    assert (definition.name, definition.version, definition.owner) == ("mine", 1, "Desk A")
    assert definition.names == (
        *("MA10", "MA20", "MA30", "MA60", "GAP"),
        *("MACD", "MACD_signal", "MACD_histogram", "RSI7", "BB_width"),
    )
    assert definition.dependencies["GAP"] == {"open": 0.0, "close": 1.0}
    assert definition.dependencies["RSI7"] == {"close": inf}
    assert definition.fields == ("open", "close")
    assert definition.lookback_rows == inf


def test_other_instruments_are_told_with_their_fields_and_reach(tmp_path: Path) -> None:
    """Over all columns, the furthest reach of each field."""
    definition = mine(
        tmp_path,
        "  factors:\n    A: $close/ChangeInstrument('IDX', Mean($close, 5))\n"
        "    B: $volume/ChangeInstrument('IDX', Ref($close, 9)+$open)\n",
    )
    assert definition.foreign == {"IDX": {"close": 9.0, "open": 0.0}}
    assert definition.fields == ("open", "close", "volume")
    assert definition.lookback_rows == 9.0


WRONG = {
    "an operator": (
        "  factors:\n    X: Mean($close, 5)-Maen($close, 9)\n",
        r"(?s)mine\.factors\.X: .*Mean.*\^ column 17",
    ),
    "a future": ("  factors:\n    X: $open/Ref($close, -1)\n", r"(?s)mine\.factors\.X: .*future.*\^ column 7"),
    "a field": ("  factors:\n    X: $clsoe\n", r"mine\.factors\.X: .*\$clsoe"),
    "a number": ("  factors:\n    X: 5\n", r"mine\.factors\.X: expected lines like .* got 5"),
    "a factor twice": ("  factors:\n    X: $close\n    X: $open\n", r"mine: X is there twice"),
    "flow style": ("  factors: {X: Ref($close, 5)/$close}\n", r"mine\.factors\.5\)/\$close: expected lines like"),
    "a YAML boolean": ("  factors:\n    NO: $close\n", r"mine\.factors\..* got False"),
    "a bad name": ("  factors:\n    X-1: $close\n", r"mine\.factors\.X-1: 'X-1' is not a column name"),
    "a reserved name": ("  factors:\n    label: $close\n", r"mine\.factors\.label: .* none of .*label"),
    "a key": ("  factor:\n    X: $close\n", r"mine\.factor: unknown key 'factor'; did you mean factors\?"),
    "an included set": ("  include: [alhpa158]\n", r"mine\.include\.0: unknown feature set .* mean alpha158"),
    "a list": ("  include: alpha158\n", r"mine\.include: expected a list of sets, got 'alpha158'"),
    "itself": ("  include: [mine]\n", r"mine\.include: a set cannot include itself: mine > mine"),
    "an exclusion": ("  include: [alpha158]\n  exclude: [KMDI]\n", r"mine\.exclude\.0: unknown column .* KMID"),
    "two columns": ("  include: [alpha158]\n  factors: {KMID: $close}\n", r"mine\.factors: column 'KMID' of mine"),
    "two kinds": (
        "  factors: {RSI: $close}\n  indicators: [{indicator: rsi, name: RSI}]\n",
        r"mine\.indicators: column 'RSI' of mine",
    ),
    "an indicator": ("  indicators: [{indicator: rssi}]\n", r"mine\.indicators\[0\]\.indicator: unknown"),
    "a parameter": ("  indicators: [{indicator: rsi, window: 0}]\n", r"mine\.indicators\[0\]\.window: 0 is not"),
    "an output": ("  indicators: [{indicator: rsi, columns: [X]}]\n", r"mine\.indicators\[0\]\.columns: no column 'X'"),
    "no list": ("  indicators: 5\n", r"mine\.indicators: expected a list of entries"),
    "no file": ("  indicators: gone.yaml\n", r"gone\.yaml: cannot be read"),
    "nothing": ("", r"mine: has no columns"),
    "all left out": ("  include: [anomalies]\n  exclude: ['*']\n", r"mine: has no columns"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_set_is_refused_with_file_set_key_and_place(case: str, tmp_path: Path) -> None:
    """Asking for it fails; the others are there all the same, and a check of all names the wrong one only."""
    body, message = WRONG[case]
    with pytest.raises(ConfigError, match=message) as caught:
        mine(tmp_path, body)
    assert str(tmp_path) in str(caught.value)
    with (tmp_path / "feature_sets.yaml").open("a") as file:
        file.write(f"right:\n{HEAD}  factors:\n    X: $close/$open\n")
    settings = Settings(home=tmp_path)
    assert find_feature_set("right", settings).names == ("X",)
    assert check_feature_sets(settings) == {"mine": str(caught.value)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- mine\n", r"expected a mapping from a set's name to its entry"),
        ("mine: [\n", r"cannot be read as YAML: .*line 2"),
        ("mine:\n", r"mine: expected a mapping of version, owner"),
        ("mine:\n  version: one\n  owner: a\n  description: b\n", r"mine\.version: expected a whole number .* 'one'"),
        ("mine:\n  version: true\n  owner: a\n  description: b\n", r"mine\.version: expected a whole number .* True"),
        ("mine:\n  version: 1\n  description: b\n", r"mine\.owner: is missing; give a name"),
        (f"../mine:\n{HEAD}mine:\n{HEAD}  include: [../mine]\n", r"'\.\./mine' is not a name for a set"),
        (f"mine:\n{HEAD}mine:\n{HEAD}", r"mine is there 2 times"),
        (f"mine:\n{HEAD}  include: [b]\nb:\n{HEAD}  include: [mine]\n", r"itself: mine > b > mine"),
        (f"alpha158:\n{HEAD}", r"unknown feature set 'mine'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_leaves_the_built_in_sets(
    text: str, message: str, tmp_path: Path
) -> None:
    """What no set of the file can be blamed for is told when one is asked for."""
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        own_set(tmp_path, text)
    assert find_feature_set("alpha360", Settings(home=tmp_path)).names
    assert check_feature_sets(Settings(home=tmp_path))


def test_a_set_of_ones_own_replaces_a_shipped_one_but_no_built_in_one(tmp_path: Path) -> None:
    """What Alpha158 means is not the user's to say; a shipped example is."""
    assert own_set(tmp_path, f"anomalies:\n{HEAD}  factors: {{X: $close}}\n", "anomalies").names == ("X",)
    with pytest.raises(ConfigError, match="alpha158 is the name of a built-in set"):
        own_set(tmp_path, f"alpha158:\n{HEAD}  factors: {{X: $close}}\n", "alpha158")
    assert find_feature_set("anomalies").names != ("X",)


def test_the_same_column_may_come_by_two_ways(tmp_path: Path) -> None:
    """Two included sets with a common part have it once."""
    definition = own_set(
        tmp_path,
        f"a:\n{HEAD}  include: [alpha158, technical]\nb:\n{HEAD}  include: [technical, alpha158]\n"
        f"mine:\n{HEAD}  include: [a, b]\n",
    )
    assert definition.digest == find_feature_set("a", Settings(home=tmp_path)).digest


def test_a_set_is_known_by_what_it_computes(tmp_path: Path) -> None:
    """Owner, description, number and spelling do not matter; order, names, numbers and parameters do."""
    factors, rsi = "  factors:\n    A: $close/$open\n    B: Mean($close, 5)\n", "  indicators: [{indicator: rsi}]\n"
    digest = mine(tmp_path, factors + rsi).digest
    other_head = "  version: 2\n  owner: Desk B\n  description: Ours.\n"
    assert own_set(tmp_path, f"mine:\n{other_head}{factors}{rsi}").digest == digest
    assert own_set(tmp_path, f"other:\n{HEAD}{factors}{rsi}", "other").digest == digest
    assert mine(tmp_path, "  factors:\n    A: ($close / $open)\n    B: Mean( $close,5 )\n" + rsi).digest == digest
    assert mine(tmp_path, factors + "  indicators: [{indicator: rsi, window: 14}]\n").digest == digest
    others = [
        mine(tmp_path, "  factors:\n    B: Mean($close, 5)\n    A: $close/$open\n" + rsi),
        mine(tmp_path, "  factors:\n    C: $close/$open\n    B: Mean($close, 5)\n" + rsi),
        mine(tmp_path, "  factors:\n    A: $close/$open\n    B: Mean($close, 6)\n" + rsi),
        mine(tmp_path, factors + "  indicators: [{indicator: rsi, window: 15}]\n"),
        mine(tmp_path, factors),
    ]
    assert len({digest, *(each.digest for each in others)}) == 6
