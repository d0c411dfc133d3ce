import tempfile
from pathlib import Path
from mlops_tasks.config import Settings
from tests.benchmarks.bench_metric_events import _assignment
from tests.experiments.designs import running
with tempfile.TemporaryDirectory() as f:
    s=Settings(home=Path(f)); running(s); print(_assignment(s))
