"""The certificate: made once for a question, kept as JSON, refused when a stored feature knows the future."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT
from mlops_tasks.config import CertificateSettings, Settings, load_settings
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE, canonical_membership
from mlops_tasks.data.vintages import publish
from mlops_tasks.errors import ConfigError, LeakError, StageError
from mlops_tasks.features.partitions import write_partition
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json
from mlops_tasks.modeling.seal import artefact_digest
from mlops_tasks.process import run_stage, stage_function
from mlops_tasks.stage_output import StageLine
from mlops_tasks.state.history import newest_alerts
from mlops_tasks.training.certificate import (
    certificate_of,
    certificate_path,
    certify,
    find_certificate,
    subject_of,
)
from mlops_tasks.training.plan import RunPlan, make_plan
from tests.features.market import awkward_bars, make_vintage
from tests.training.conftest import Market


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    settings = Settings(home=tmp_path_factory.mktemp("certified"))
    vintage = make_vintage(settings.home, awkward_bars(instruments=8, days=150))
    publish(settings, vintage.data_version)
    return Market(settings, vintage, FeatureStore(settings).compute(vintage).feature_version)


@pytest.fixture(scope="module")
def plan(market: Market) -> RunPlan:
    return make_plan(market.settings, market.vintage.data_version, market.vintage.calendar(), {})


@pytest.fixture
def leaking(market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home whose store holds, in one column of one instrument in the newest year, the next day's close."""
    for name in ("data", "features"):
        shutil.copytree(market.settings.home / name, tmp_path / name)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    settings = load_settings()
    store = FeatureStore(settings)
    version = store.get(market.feature_version)
    partition = version.partitions[-1]
    features = store.load(market.feature_version, start=f"{partition.year}-01-01")
    name = features.index.get_level_values(INSTRUMENT)[-1]
    closes = market.vintage.adjusted_bars(fields=(CLOSE,)).set_index([DATETIME, INSTRUMENT])[CLOSE]
    ahead = closes.groupby(level=INSTRUMENT).shift(-1).reindex(features.index).astype(np.float32)
    features.loc[(slice(None), name), "VSTD30"] = ahead
    index = features.index.remove_unused_levels()
    write_partition(store.partitions / f"{partition.digest}.parquet", version.names, index, [features.to_numpy().T])
    return settings


def test_the_chain_is_certified_once(market: Market, plan: RunPlan) -> None:
    """The certificate says what was checked and is found again; nothing is written a second time."""
    certificate = certify(market.settings, plan, market.feature_version)
    assert certificate.passed
    path = certificate_path(market.settings, certificate.key)
    written = path.read_bytes()
    assert certify(market.settings, plan, market.feature_version) == certificate
    assert path.read_bytes() == written
    assert find_certificate(market.settings, certificate.key) == certificate

    content = json.loads(written)
    assert content["passed"]
    subject = content["subject"]
    assert (subject["data_version"], subject["feature_version"]) == (plan.data_version, market.feature_version)
    assert subject["definition"] == FeatureStore(market.settings).definition(market.feature_version).digest
    assert subject["cuts"] == [
        str(plan.segments["train"][1]),
        str(plan.segments["valid"][1]),
        str(market.vintage.calendar()[-2].date()),
    ]
    assert subject["label_processors"] == ["CSRankNorm", "CSZScoreNorm"]
    assert content["values"] == sum(check["values"] for check in content["checks"])
    assert all(check["passed"] and check["rows"] and len(check["digest"]) == 16 for check in content["checks"])


def test_another_question_is_another_certificate(market: Market, plan: RunPlan) -> None:
    """Horizon, models, segments and cuts are part of the key; the order of the models is not."""
    known = certify(market.settings, plan, market.feature_version)
    one_cut = market.settings.model_copy(update={"certificate": CertificateSettings(cuts=1)})
    one = certify(one_cut, plan, market.feature_version)
    alone = certify(one_cut, plan.model_copy(update={"models": ("lightgbm",)}), market.feature_version)
    later = certify(one_cut, plan.model_copy(update={"horizon": 5}), market.feature_version)
    assert len({each.key for each in (known, one, alone, later)}) == 4
    assert one.subject.cuts == known.subject.cuts[:1]
    assert {check["name"] for check in alone.checks} == {check["name"] for check in one.checks} - {"processors"}
    swapped = plan.model_copy(update={"models": plan.models[::-1]})
    assert certify(market.settings, swapped, market.feature_version) == known


def test_factors_without_end_indicators_and_other_instruments_are_certified(market: Market) -> None:
    """Values that hang on an instrument's first bar, or on another instrument, are the same without later data too."""
    (market.settings.home / "feature_sets.yaml").write_text(
        "mine:\n  version: 1\n  owner: Desk A\n  description: Mine.\n"
        "  factors:\n    SLOW: EMA($close, 20)/$close\n    HIGHEST: Max($close, 0)/$close\n"
        "    RELATIVE: $close/Ref($close, 5)-ChangeInstrument('I00', $close/Ref($close, 5))\n"
        "  indicators: [{indicator: rsi, name: RSI}]\n"
    )
    feature_version = FeatureStore(market.settings).compute(market.vintage, "mine").feature_version
    form = {"models": ["lightgbm"], "feature_set": "mine"}
    plan = make_plan(market.settings, market.vintage.data_version, market.vintage.calendar(), form)
    certificate = certify(market.settings, plan, feature_version)
    assert certificate.passed
    assert {check["columns"] for check in certificate.checks if check["name"] == "features"} == {4}


def test_columns_that_teach_nothing_are_in_plan_and_certificate(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their shares, in the plan before a feature is read; a model that cannot take them is refused by name."""
    monkeypatch.setenv("MLOPS_HOME", str(market.settings.home))
    (market.settings.home / "feature_sets.yaml").write_text(
        "poor:\n  version: 1\n  owner: Desk A\n  description: Poor.\n  factors:\n    MOVE: $close/Ref($close, 1)\n"
        "    EMPTY: Ref($close, 4000)/$close\n    ONE: $close/$close\n    ENDLESS: $close/($close-$close)\n"
    )
    (market.settings.home / "models.yaml").write_text(
        "plain:\n  family: sklearn\n  class_path: sklearn.linear_model:Ridge\n  description: Plain.\n"
        "  recommended_for: [Tests.]\n  feature_processors: []\n  label_processor: CSRankNorm\n"
        "  hyperparameters:\n    alpha: {type: number, minimum: 0, default: 1.0}\n"
    )
    store, make = FeatureStore(market.settings), stage_function("training.plan")
    form = {"models": ["lightgbm"], "feature_set": "poor"}
    assert make(**form)["column_warnings"] == []
    version = store.compute(market.vintage, "poor").feature_version
    told = make(**form)
    plan = RunPlan.model_validate(told)
    years = [day.year for day in plan.segments["train"]]
    assert told["column_warnings"][0] == (
        f"1 of 4 columns (25.00%) have no value in the years {years[0]} to {years[1]}, all instruments: EMPTY"
    )
    content = read_json(certificate_path(market.settings, certify(market.settings, plan, version).key))
    assert content["columns"]["missing"] == ["EMPTY"]
    assert content["columns"]["constant"][0] == "ONE"
    assert content["columns"]["infinite"]["ENDLESS"] > 0.9
    assert content["columns"]["shares"]["missing"] == 0.25
    with pytest.raises(ConfigError, match=r"models\.plain\..*cannot learn from infinite values: ENDLESS \("):
        certify(market.settings, RunPlan.model_validate(make(**{**form, "models": ["plain"]})), version)


def test_a_stored_feature_that_knows_the_next_day_is_refused(leaking: Settings, market: Market, plan: RunPlan) -> None:
    """The error names column, instrument, date and remedy; the failed certificate is kept, and never reused."""
    for _ in range(2):
        with pytest.raises(LeakError, match=r"VSTD30 of \w+ on \d{4}-\d\d-\d\d is .* with later data and .* without"):
            certify(leaking, plan, market.feature_version)
    (path,) = (leaking.home / "certificates").glob("*.json")
    content = read_json(path)
    assert not content["passed"]
    broken = [check for check in content["checks"] if not check["passed"]]
    assert {check["name"] for check in broken} == {"features"}
    assert {tuple(check["difference"]["columns"]) for check in broken} == {("VSTD30",)}

    shutil.rmtree(leaking.features_dir)
    FeatureStore(leaking).compute(market.vintage)
    assert certify(leaking, plan, market.feature_version).passed


def test_the_stage_raises_an_alert_and_stops(leaking: Settings, market: Market, plan: RunPlan) -> None:
    """As the DAG runs it, in a process of its own: it fails, and people are told once."""
    arguments = {"plan": plan.model_dump(mode="json"), "features": {"feature_version": market.feature_version}}
    said: list[StageLine] = []
    with pytest.raises(StageError, match=r"training\.certify"):
        run_stage("training.certify", arguments, time_limit_s=200, on_line=said.append)
    assert any("VSTD30" in line.text for line in said)
    with pytest.raises(LeakError):
        stage_function("training.certify")(**arguments)
    (alert,) = newest_alerts(leaking, 5)
    assert (alert.kind, alert.subject) == ("leak_found", market.feature_version)
    assert "VSTD30" in alert.message


@pytest.mark.parametrize("member", ["I00.US", "GONE"])
def test_nothing_to_compare_is_no_leak(
    member: str, market: Market, plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a universe that no bar knows: the message speaks of the universe, and nobody is told of a leak."""
    universe = pd.DataFrame({INSTRUMENT: [member], FIRST_DATE: ["2000-01-03"], LAST_DATE: ["2199-12-31"]})
    vintage = make_vintage(tmp_path, market.vintage.bars(), canonical_membership(universe))
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    settings = load_settings()
    feature_version = FeatureStore(settings).compute(vintage).feature_version
    arguments = {
        "plan": plan.model_copy(update={"data_version": vintage.data_version}).model_dump(mode="json"),
        "features": {"feature_version": feature_version},
    }
    with pytest.raises(ConfigError, match=r"checks found nothing to compare.* data\.universe") as caught:
        stage_function("training.certify")(**arguments)
    assert not isinstance(caught.value, LeakError)
    assert [alert.kind for alert in newest_alerts(settings, 5)] == ["not_certified"]


def test_a_training_records_its_certificate_and_stays_the_same(
    market: Market, plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key lies beside what was trained; training key and artefact do not depend on it, and the first one stays."""
    monkeypatch.setenv("MLOPS_HOME", str(market.settings.home))
    form = {"plan": plan.model_dump(mode="json"), "features": {"feature_version": market.feature_version}}
    certificate = stage_function("training.certify")(**form)
    assert certificate["passed"]
    assert certificate["cuts"] == [
        str(each) for each in certify(market.settings, plan, market.feature_version).subject.cuts
    ]
    train = stage_function("training.train")
    trained = train(**form, model="linear")
    folder = market.settings.training_dir / trained["training_key"]
    before = artefact_digest(folder / "model")
    again = train(**form, model="linear")
    assert again == trained
    wider = RunPlan.model_validate({**plan.model_dump(), "models": (*plan.models, "xgboost")})
    assert subject_of(market.settings, wider, market.feature_version).key != certificate["key"]
    assert train(plan=wider.to_json(), features=form["features"], model="linear") == trained
    assert artefact_digest(folder / "model") == before
    found = certificate_of(market.settings, trained["training_key"])
    assert found is not None
    assert found.key == certificate["key"]
    assert certificate_of(market.settings, "never trained") is None


def test_a_training_is_certified_whichever_half_comes_first(
    market: Market, plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learning data may be certified while the model is trained; until then nothing certifies the model."""
    monkeypatch.setenv("MLOPS_HOME", str(market.settings.home))
    alone = plan.model_copy(update={"models": ("linear",), "seed": plan.seed + 1})
    form = {"plan": alone.to_json(), "features": {"feature_version": market.feature_version}}
    trained = stage_function("training.train")(**form, model="linear")
    assert certificate_of(market.settings, trained["training_key"]) is None
    certificate = stage_function("training.certify")(**form)
    found = certificate_of(market.settings, trained["training_key"])
    assert found is not None and found.passed and found.key == certificate["key"]
    assert found.artefact == artefact_digest(market.settings.home / trained["path"] / "model")


def test_a_certificate_of_no_check_has_not_passed(market: Market, plan: RunPlan) -> None:
    """Nothing checked is nothing proven."""
    certificate = certify(market.settings, plan, market.feature_version)
    assert not replace(certificate, checks=()).passed
    assert pd.Timestamp(certificate.created).tzinfo is not None
