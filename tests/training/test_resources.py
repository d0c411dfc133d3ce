"""What a training uses, what it is thought to need, and what there is."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks import stage_process
from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings, TrainingSettings
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json
from mlops_tasks.machine.memory_limits import available_mb
from mlops_tasks.machine.resources import GpuProbe, ResourceSampler, tree_of, usage_of_tree, used_so_far
from mlops_tasks.modeling.cross_validation import load_panel
from mlops_tasks.modeling.dataset import load_learning_data
from mlops_tasks.modeling.model_zoo.families import FAMILIES
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.model_zoo.memory import FORMULAS
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.events import read_events
from mlops_tasks.training.memory_need import fold_need, memory_need
from mlops_tasks.training.plan import make_plan
from mlops_tasks.training.run_folder import FitRequest
from tests.benchmarks.processes import in_process
from tests.features.market import awkward_bars, make_vintage
from tests.training.descent import SmallMarket, config

WORK = """
import subprocess, sys, time
held = bytearray(200_000_000)
for place in range(0, len(held), 4096):
    held[place] = 1
del held
small = "import time; x = bytearray(50_000_000); x[::4096] = b'1' * len(x[::4096]); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", small])
end = time.process_time() + 0.4
while time.process_time() < end:
    pass
time.sleep(0.3)
print("ready", flush=True)
time.sleep(60)
"""
"""Holds 200 MB for a moment, starts a child that holds 50 MB, computes for 0.4 s."""


def test_a_sample_has_what_the_whole_tree_of_processes_uses() -> None:
    """Memory now and at its peak, processor time, threads and processes of parent and child together."""
    with subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True) as worker:
        sampler = ResourceSampler(worker.pid)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        sample = sampler.sample()
        assert sample["processes"] == sample["threads"] == 2
        assert 50 <= sample["rss_mb"] <= 150
        assert 200 <= sample["peak_memory_mb"] <= 260
        assert 0.4 <= sample["cpu_seconds"] <= 5.0
        assert sample["cpu_percent"] > 0
        for pid in list(tree_of(worker.pid))[::-1]:
            os.kill(pid, 9)
    assert sampler.sample() == {}
    assert sampler.totals()["peak_memory_mb"] == sample["peak_memory_mb"]
    assert usage_of_tree(worker.pid).processes == 0


def test_sampling_costs_less_than_half_a_percent_of_a_core() -> None:
    """At the default interval of five seconds."""
    sampler = ResourceSampler(os.getpid())
    began = time.thread_time()
    for _ in range(50):
        sampler.sample()
    assert (time.thread_time() - began) / 50 < 0.005 * 5


def test_a_process_knows_its_own_peak_and_what_it_wrote(tmp_path: Path) -> None:
    """As a training notes them among its metrics."""
    before = used_so_far()
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(3_000_000))
        file.flush()
        os.fsync(file.fileno())
    after = used_so_far()
    assert after["peak_memory_mb"] >= usage_of_tree(os.getpid()).rss_mb * 0.5
    assert after["written_mb"] - before["written_mb"] >= 2.9
    assert after["cpu_seconds"] >= before["cpu_seconds"]


def test_gpus_are_asked_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a slow `nvidia-smi` comes with a later sample; mean utilisation, and memory of all GPUs in MB."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nsleep 0.3\necho '40, 1000'\necho '60, 3000'\necho '[N/A], 5'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    probe = GpuProbe()
    began = time.monotonic()
    assert probe.read() == {}
    assert time.monotonic() - began < 0.25
    while not (found := probe.read()):
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    assert found == {"gpu_percent": 50.0, "gpu_memory_mb": round(4000 * 1.048576, 1)}


def _machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    contents = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000000 kB\n", "proc/self/cgroup": cgroup, **files}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_without_a_limit_there_is_what_the_machine_has_available(tmp_path: Path) -> None:
    """A group whose limit is `max` limits nothing."""
    group = {"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "1\n"}
    assert available_mb(_machine(tmp_path, "0::/a\n", group)) == 8_000_000 * 1024 / 1e6


def test_a_container_has_what_its_group_has_left(tmp_path: Path) -> None:
    """Limit less use, cached files not counted as use, whichever of the groups around the process is the tightest."""
    outer, inner = "sys/fs/cgroup/a", "sys/fs/cgroup/a/b"
    files = {
        f"{outer}/memory.max": "3000000000",
        f"{outer}/memory.current": "2500000000",
        f"{outer}/memory.stat": "anon 1\ninactive_file 700000000\n",
        f"{inner}/memory.max": "2000000000",
        f"{inner}/memory.current": "100000000",
        f"{inner}/memory.stat": "inactive_file 0\n",
    }
    assert available_mb(_machine(tmp_path, "0::/a/b\n", files)) == pytest.approx(1200)


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    """In a container the group's own path is not there, and the mount is the group."""
    mount = "sys/fs/cgroup/memory"
    files = {
        f"{mount}/memory.limit_in_bytes": "1000000000",
        f"{mount}/memory.usage_in_bytes": "400000000",
        f"{mount}/memory.stat": "cache 5\ntotal_inactive_file 100000000\n",
    }
    assert available_mb(_machine(tmp_path, "4:memory:/docker/abc\n0::/\n", files)) == pytest.approx(700)


def test_the_need_follows_from_the_manifests_alone(tmp_path: Path) -> None:
    """Rows of the plan's days within a tenth of what is loaded, from files that hold no feature at all."""
    market = SmallMarket.make(tmp_path)
    for path in (market.settings.features_dir / "partitions").glob("*.parquet"):
        path.unlink()
    plan = market.plan
    need = memory_need(market.settings, FitRequest(plan, market.feature_version, config()))
    first, last = plan.segments["train"][0], plan.segments["test"][1]
    rows = len(load_vintage(market.settings, plan.data_version).bars((), first, last))
    assert rows <= need.rows <= 1.1 * rows + 10
    assert need.total_mb == need.base_mb + need.data_mb + need.model_mb
    windows = FitRequest(plan, market.feature_version, config(window=60))
    assert memory_need(market.settings, windows).rows >= need.rows


def test_only_members_of_the_universe_need_memory(tmp_path: Path) -> None:
    """Of a universe of every fourth instrument, the second half of the days; models with windows read all rows."""
    bars = awkward_bars(instruments=40, days=500)
    names, days = sorted(bars[INSTRUMENT].unique())[::4], sorted(bars[DATETIME].unique())
    universe = pd.DataFrame({INSTRUMENT: names, FIRST_DATE: days[250], LAST_DATE: pd.Timestamp("2100-01-01")})
    settings, vintage = Settings(home=tmp_path), make_vintage(tmp_path, bars, universe)
    version = FeatureStore(settings).compute(vintage, "alpha158").feature_version
    plan = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["lightgbm"]})
    data = load_learning_data(settings, plan.learning_spec(version))
    need = memory_need(settings, FitRequest(plan, version, plan.config("lightgbm", settings)))
    assert len(data.features) <= need.rows <= 1.1 * len(data.features) + 10
    assert need.data_mb < 0.4 * memory_need(settings, FitRequest(plan, version, config(window=20))).data_mb
    fold = fold_need(settings, vintage, version, plan.config("lightgbm", settings), is_loaded=False)
    panel = load_panel(settings, vintage, version, plan.horizon)
    assert len(panel.features) <= fold.rows <= 1.1 * len(panel.features) + 10


@pytest.mark.parametrize("family", sorted(set(FORMULAS) & set(FAMILIES)))
def test_the_light_formula_is_the_familys_own(family: str) -> None:
    """A process that must not import the family estimates what the family does."""
    parameters = {"window": 30, "batch_size": 512, "layers": 3, "d_model": 96} if family == "network" else {}
    assert find_family(family).memory_bytes(parameters, 12_345, 67) == FORMULAS[family](parameters, 12_345, 67)


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str, str]:
    """Settings, vintage and Alpha158 of some 80,000 rows."""
    settings = Settings(home=tmp_path_factory.mktemp("panel"), training=TrainingSettings(sample_s=0.5))
    vintage = make_vintage(settings.home, awkward_bars(instruments=200, days=500))
    return settings, vintage.data_version, FeatureStore(settings).compute(vintage, "alpha158").feature_version


@pytest.mark.parametrize(("model", "changes"), [("lightgbm", {"num_boost_round": 5}), ("linear", {})])
def test_the_estimate_is_an_upper_bound_and_no_idle_one(
    panel: tuple[Settings, str, str], model: str, changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the measured peak and twice as much; samples, the terminal event and metrics.json agree on the peak.

    Of a fresh interpreter: the estimate includes the libraries, which a forked process shares with the server.
    """
    monkeypatch.setattr("mlops_tasks.process.start_process", stage_process.start_process)
    settings, data_version, feature_version = panel
    calendar = load_vintage(settings, data_version).calendar()
    plan = make_plan(settings, data_version, calendar, {"models": [model], "hyperparameters": {model: changes}})
    handle = UnifiedQlibTrainingEngine(settings).start(plan, feature_version, model)
    folder = handle.supervise()
    events = read_events(settings, handle.run_id)
    samples = [event.payload for event in events if event.kind == "resources"]
    ending = events[-1].payload
    peak = read_json(folder / "metrics.json")["peak_memory_mb"]
    assert peak <= ending["estimated_memory_mb"] <= 2 * peak
    assert samples[-1]["peak_memory_mb"] == ending["peak_memory_mb"] == pytest.approx(peak, rel=0.2)
    assert any(sample["cpu_percent"] > 0 for sample in samples)
    assert samples[-1]["cpu_seconds"] > samples[0]["cpu_seconds"] > 0


@pytest.mark.parametrize(
    ("model", "fixed_mb"), [("linear", 0), ("mlp", 0), ("lightgbm", 12 * 158 * 63_000 / 1e6), ("xgboost", 140)]
)
def test_a_training_takes_two_and_a_half_times_its_matrix(model: str, fixed_mb: float) -> None:
    """From the digest of the rows to their scores, beyond what does not grow with them: the 200,000 rows, here all of
    train's, that LightGBM chooses its bins by, and XGBoost's sketches of the columns."""
    found = in_process("tests.training.peak_of_training", model, 90_000)
    assert found["peak"] - fixed_mb * 1e6 <= 2.5 * found["matrix"]
