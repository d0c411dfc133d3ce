"""What the service stands on fails under load, and nobody notices: real processes, a real PostgreSQL, a full disk."""

from pathlib import Path

import pytest

from tests.benchmarks.outages import CLIENTS, stage
from tests.benchmarks.soak import peak_memory
from tests.small_disk import may_mount


@pytest.mark.skipif(not may_mount(), reason="a small disk needs user namespaces")
def test_no_outage_costs_an_answer_or_its_place_in_the_log(tmp_path: Path) -> None:
    """A worker, the database and the disk; a switch and a bad canary: each answer is right by one version and logged
    once."""
    with stage(tmp_path) as service, peak_memory(service.supervisor.pid) as peak:
        events = (service.lose_a_worker, service.switch, service.reject_a_canary, service.lose_the_database)
        for event in (*events, service.fill_the_disk):
            event(60)
        seen, found = service.seen, service.log()
        dropped = service.metrics()["alphaops_predictions_dropped_total"]
    assert (seen.failed, seen.wrong) == ([], [])
    assert {version for version, _ in seen.answered.values()} == {service.blue, service.green, service.worse}
    assert (found.missing, found.doubled, found.misnamed, found.lost, dropped) == (0, 0, 0, 0, 0)
    assert found.unseen <= service.kills * CLIENTS, "at most what was answered as a worker died"
    assert peak[0] < 2000
