"""Ways to know the future that features do not show: in a model's code, its windows, its levels, its universe."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from mlops_tasks.config import ModelSettings, Settings
from mlops_tasks.data.vintages import Vintage, publish
from mlops_tasks.errors import ConfigError, LeakError, TrainingError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling import identity
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.identity import training_identity
from mlops_tasks.modeling.model_zoo.network import ARCHITECTURE, WEIGHTS, Architecture
from mlops_tasks.modeling.seal import seal
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.modeling.windows import IntArray, PanelWindows
from mlops_tasks.signing import SigningKey
from mlops_tasks.training.certificate import Certificate, CertificateSubject, certificate_of, certify, certify_model
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.plan import RunPlan, make_plan
from mlops_tasks.training_folder import TrainingFolder
from tests.features.market import awkward_bars, make_vintage
from tests.registry.trainings import Spec, make_training
from tests.training.conftest import Market

OWN_SET = (
    "mine:\n  version: 1\n  owner: me\n  description: d\n"
    "  factors:\n    {column}: {expression}\n    KMID: $close/$open-1\n"
)
ENTRY = (
    "{name}:\n  family: {family}\n  class_path: {class_path}\n  description: d\n  recommended_for: [Tests.]\n"
    "  feature_processors: [robust_zscore_fill_zero]\n  label_processor: CSRankNorm\n  hyperparameters:\n{parameters}"
)


def market_of(home: Path, bars: pd.DataFrame, feature_set: str = "alpha158", expressions: str = "") -> Market:
    """A published vintage and the features of a set over it."""
    settings = Settings(home=home, models=ModelSettings(unpickling_families=("sklearn",), isolated_memory_mb=2000))
    vintage = make_vintage(home, bars)
    publish(settings, vintage.data_version)
    if expressions:
        (home / "feature_sets.yaml").write_text(expressions)
    return Market(settings, vintage, FeatureStore(settings).compute(vintage, feature_set).feature_version)


def plan_of(market: Market, *models: str, feature_set: str = "alpha158") -> RunPlan:
    form = {"models": list(models), "feature_set": feature_set}
    return make_plan(market.settings, market.vintage.data_version, market.vintage.calendar(), form)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Two honest features over awkward bars."""
    text = OWN_SET.format(column="ROC5", expression="Ref($close, 5)/$close")
    return market_of(tmp_path_factory.mktemp("narrow"), awkward_bars(instruments=8, days=150), "mine", text)


def own_entry(market: Market, name: str, family: str, class_path: str, parameters: str) -> RunPlan:
    """The plan that trains an entry of models.yaml."""
    entry = ENTRY.format(name=name, family=family, class_path=class_path, parameters=parameters)
    (market.settings.home / "models.yaml").write_text(entry)
    return plan_of(market, name, feature_set="mine")


# What a model's own code reads.


def test_an_own_class_does_not_reach_the_store_while_it_learns(narrow: Market) -> None:
    """An estimator whose `fit` reads the vintages of the home is not trained; the error says what it may read."""
    parameters = f"    home: {{type: string, default: {narrow.settings.home}}}\n"
    plan = own_entry(narrow, "spy", "sklearn", "tests.training.leaking_models:Student", parameters)
    with pytest.raises(TrainingError, match=r"own class may read only .*Permission denied: .*vintages"):
        UnifiedQlibTrainingEngine(narrow.settings).train(plan, narrow.feature_version, "spy")


def own_network(market: Market, class_path: str, **hyperparameters: object) -> tuple[ModelArtefact, torch.nn.Module]:
    """A signed artefact of an own network of two features, loaded, and the network."""
    folder = market.settings.home / class_path.rpartition(":")[2]
    folder.mkdir()
    made = Architecture(class_path, 2, 1, hyperparameters)
    network = made.build()
    save_file(network.state_dict(), folder / WEIGHTS)
    write_json(folder / ARCHITECTURE, vars(made))
    write_json(folder / "processors.json", {"kind": "none"})
    manifest = {"family": "network", "class_path": class_path, "feature_names": ["ROC5", "KMID"], "window": 1}
    seal(folder, manifest, SigningKey.of(market.settings))
    return ModelArtefact.load(folder, Trust.of(market.settings)), network.eval()


def test_an_own_network_does_not_reach_the_store_while_it_scores(narrow: Market) -> None:
    """It scores in a process of its own: one that looks fails there, an honest one gives what it gives here."""
    features = pd.DataFrame({"ROC5": [1.0, 2.0], "KMID": [0.5, -1.0]})
    spy, _ = own_network(narrow, "tests.training.leaking_models:Reader", home=str(narrow.settings.home))
    with pytest.raises(TrainingError, match=r"PermissionError: .*vintages"):
        spy.predict(features)
    honest, network = own_network(narrow, "tests.training.own_models:OneDay", hidden_size=2)
    with torch.inference_mode():
        expected = network(torch.tensor(features.to_numpy(np.float32)))
    np.testing.assert_allclose(honest.predict(features), expected, rtol=1e-5)


# Windows, which are built when a model scores.


def fabricated(market: Market, window: int) -> tuple[TrainingFolder, CertificateSubject]:
    """A recurrent network over a market's features, its predictions, and what the first half's certificate is about."""
    features = FeatureStore(market.settings).load(market.feature_version)
    label = pd.Series(np.zeros(len(features)), features.index, name="label")
    spec = Spec(model="network", window=window, feature_set="mine")
    spec = replace(spec, data_version=market.vintage.data_version, feature_version=market.feature_version)
    folder = make_training(market.settings, spec, (features, label))
    plan = plan_of(market, "lstm", feature_set="mine")
    return TrainingFolder(folder), certify(market.settings, plan, market.feature_version).subject


@pytest.fixture
def recurrent(tmp_path: Path) -> Iterator[Market]:
    """Bars on the days of fabricated trainings."""
    text = OWN_SET.format(column="ROC5", expression="Ref($close, 5)/$close")
    yield market_of(tmp_path, awkward_bars(instruments=6, days=130, start="2020-01-01"), "mine", text)


def test_windows_that_end_two_days_later_are_found(recurrent: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores of the last two days before a cut are other ones in a home that ends there; the record says so."""

    def places(self: PanelWindows, index: IntArray) -> IntArray:
        padded = np.pad(self.position, ((0, 0), (0, 2)), constant_values=-1)
        spans = np.lib.stride_tricks.sliding_window_view(padded, self.window, axis=1)
        found: IntArray = spans[self.instrument[index], self.day[index] + 2]
        return found

    monkeypatch.setattr(PanelWindows, "places", places)
    folder, subject = fabricated(recurrent, window=5)
    with pytest.raises(LeakError, match=r"scores \(network\) at .* model that sees later days"):
        certify_model(recurrent.settings, folder, subject)
    certificate = certificate_of(recurrent.settings, folder.key)
    assert certificate is not None and not certificate.passed
    for check in read_json(folder.certificate)["checks"]:
        days = recurrent.vintage.calendar()
        assert days.get_loc(check["cut"]) - days.get_loc(check["difference"]["date"]) <= 1


def test_windows_that_end_on_their_own_day_pass(recurrent: Market) -> None:
    """Bit for bit, at every cut that has predictions; certified once, however often asked."""
    folder, subject = fabricated(recurrent, window=5)
    certify_model(recurrent.settings, folder, subject)
    certificate = certificate_of(recurrent.settings, folder.key)
    assert certificate is not None
    scored = [check for check in certificate.checks if check["name"] == "scores"]
    assert certificate.passed and [check["cut"] for check in scored] == list(certificate.subject.cuts)
    assert all(check["values"] == check["rows"] > 30 for check in scored)
    written = folder.certificate.stat().st_mtime_ns
    certify_model(recurrent.settings, folder, replace(subject, horizon=99))
    assert certificate_of(recurrent.settings, folder.key) == certificate
    assert folder.certificate.stat().st_mtime_ns == written


# Levels, which carry later splits and dividends back.


@pytest.mark.parametrize(
    "expression",
    [
        "$factor",
        "$close/$factor",
        "Log($close)",
        "$volume",
        "Mean($close, 5)",
        "Rank($close, 20)+$factor",
        "$close/ChangeInstrument('I00', $close)",
    ],
)
def test_a_level_is_found_by_rescaling(tmp_path: Path, expression: str) -> None:
    """Adjusted, raw, of a factor, of a volume, or against another instrument: named, with the remedy."""
    text = OWN_SET.format(column="LEVEL", expression=expression)
    market = market_of(tmp_path, awkward_bars(instruments=6, days=130), "mine", text)
    with pytest.raises(LeakError, match=r"levels at .*LEVEL of I\d\d on .*another unit; .*\$close/Ref"):
        certify(market.settings, plan_of(market, "linear", feature_set="mine"), market.feature_version)


@pytest.mark.parametrize("feature_set", ["alpha360", "alpha158_oscillators", "anomalies"])
def test_shipped_sets_for_training_hold_no_level(tmp_path: Path, feature_set: str) -> None:
    """Ratios do not change with the unit, up to the small numbers that keep denominators from zero."""
    market = market_of(tmp_path, awkward_bars(instruments=8, days=150), feature_set)
    plan = plan_of(market, "lightgbm", feature_set=feature_set)
    assert certify(market.settings, plan, market.feature_version).passed


# What a vintage cannot show.


def unproven(market: Market, members: pd.DataFrame | None = None) -> Certificate:
    home = market.settings.home
    vintage: Vintage = make_vintage(home, awkward_bars(instruments=8, days=150), members)
    version = FeatureStore(market.settings).compute(vintage, "mine").feature_version
    return certify(
        market.settings, plan_of(Market(market.settings, vintage, version), "linear", feature_set="mine"), version
    )


def test_what_cannot_be_proven_is_named(narrow: Market) -> None:
    """The source's dates always, with the fields that are used; a membership in which nobody ever leaves."""
    days = narrow.vintage.calendar()
    stays = pd.DataFrame({"instrument": [f"I{n:02d}" for n in range(8)], "first_date": days[0], "last_date": days[-1]})
    leaves = stays.assign(last_date=[days[-30], *[days[-1]] * 7])
    hindsight, honest = unproven(narrow, stays), unproven(narrow, leaves)
    assert hindsight.passed and honest.passed
    assert [each.partition(":")[0] for each in hindsight.unproven] == ["vendor stamps", "membership"]
    assert [each.partition(":")[0] for each in honest.unproven] == ["vendor stamps"]
    assert "that open, close were known" in honest.unproven[0]


# Identity.


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a user's own, on the path of every process."""
    package = tmp_path / "path" / "desk_code"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "scale.py").write_text("SCALE = 1.0\n")
    (package / "models.py").write_text(
        "from sklearn.linear_model import Ridge\nfrom .scale import SCALE\n\n"
        "class Own(Ridge):\n    def predict(self, X):\n        return SCALE * super().predict(X)\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    yield package
    for name in [each for each in sys.modules if each.startswith("desk_code")]:
        del sys.modules[name]


def test_an_edited_class_is_another_model(narrow: Market, desk: Path) -> None:
    """Trained anew, also when the edit is in a module that its own one imports; the old model is not loaded."""
    plan = own_entry(narrow, "own", "sklearn", "desk_code.models:Own", "    alpha: {type: number, default: 1.0}\n")
    folder = UnifiedQlibTrainingEngine(narrow.settings).train(plan, narrow.feature_version, "own")
    before = training_identity(plan.config("own", narrow.settings), 1)
    assert training_identity(plan.config("own", narrow.settings), 1) == before
    (desk / "scale.py").write_text("SCALE = -1.0\n")
    assert training_identity(plan.config("own", narrow.settings), 1) != before
    with pytest.raises(ConfigError, match=r"code of desk_code.models:Own is not what the model was trained with"):
        ModelArtefact.load(folder / "model", Trust.of(narrow.settings))
    (desk / "scale.py").write_text("SCALE = 1.0\n")
    assert training_identity(plan.config("own", narrow.settings), 1) == before
    (desk / "models.py").write_text((desk / "models.py").read_text() + "\n# an edit\n")
    assert training_identity(plan.config("own", narrow.settings), 1) != before


def test_libraries_device_and_threads_are_part_of_a_training(narrow: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version is another training, another number of threads where sums are split among them."""
    plan = plan_of(narrow, "lightgbm", "linear", feature_set="mine")
    boosted, linear, network = (plan.config(name) for name in ("lightgbm", "linear", "lstm"))
    found = identity.training_identity(network, 2)
    assert found["threads"] == 2 and found["device"] and found["source"] and "torch" in found["libraries"]
    assert identity.training_identity(boosted, 1) == identity.training_identity(boosted, 2)
    assert identity.training_identity(network, 1) != found
    before = identity.training_identity(linear, 1)
    monkeypatch.setattr(identity, "package_version", lambda name: "0")
    assert identity.training_identity(linear, 1) != before


def test_a_certificate_is_found_again_for_the_same_code_only(narrow: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of what leads from bars to scores everything is checked again."""
    plan = plan_of(narrow, "lightgbm", feature_set="mine")
    first = certify(narrow.settings, plan, narrow.feature_version)
    assert certify(narrow.settings, plan, narrow.feature_version) == first
    monkeypatch.setattr("mlops_tasks.training.certificate.certified_code", lambda: "other")
    assert certify(narrow.settings, plan, narrow.feature_version).key != first.key
