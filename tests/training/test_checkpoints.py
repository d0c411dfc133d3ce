"""Checkpoints: the newest whole one is what a training goes on from, and sessions go on as if nothing had been."""

import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from mlops_tasks.errors import TrainingCancelledError, TrainingError
from mlops_tasks.modeling.checkpoints import CheckpointFolder, training_lock
from mlops_tasks.modeling.session import Links, TrainingSession
from tests.training.descent import config


def write(content: str):
    """A family's write function."""

    def fill(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "state.txt").write_text(content)

    return fill


def read(store: CheckpointFolder) -> tuple[int, str] | None:
    found = store.newest()
    return None if found is None else (found[0], (found[2] / "sub" / "state.txt").read_text())


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    """Each save takes the place of the one before, also when the iteration is the same; `remove` leaves nothing."""
    store = CheckpointFolder(tmp_path / "k")
    assert store.newest() is None
    for iteration, content in ((5, "a"), (10, "b"), (10, "c")):
        store.save(iteration, {"seconds": iteration}, write(content))
        assert read(store) == (iteration, content)
        assert store.newest()[1] == {"seconds": iteration}  # type: ignore[index]
        assert len(list((tmp_path / "k").iterdir())) == 1
    store.remove()
    assert not (tmp_path / "k").exists()


def test_a_write_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    """An unfinished checkpoint is never seen, and does not stop the next one."""
    store = CheckpointFolder(tmp_path / "k")
    store.save(5, {}, write("a"))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk is full")

    with pytest.raises(OSError, match="full"):
        store.save(10, {}, fail)
    assert read(store) == (5, "a")
    store.save(15, {}, write("b"))
    assert read(store) == (15, "b")


@pytest.mark.parametrize("harm", ["byte", "missing file", "extra file", "manifest", "torn manifest", "no manifest"])
def test_an_altered_checkpoint_is_not_used(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever was changed, the one before is used where there is one, else none; the log says so."""
    store = CheckpointFolder(tmp_path / "k")
    store.save(5, {"seconds": 1}, write("older"))
    (older,) = (tmp_path / "k").iterdir()
    shutil.copytree(older, tmp_path / "older")
    store.save(10, {"seconds": 2}, write("newer"))
    (newer,) = (tmp_path / "k").iterdir()
    manifest, file = newer / "checkpoint.json", newer / "files" / "sub" / "state.txt"
    if harm == "byte":
        file.write_text("newes")
    elif harm == "missing file":
        file.unlink()
    elif harm == "extra file":
        (newer / "files" / "more").touch()
    elif harm == "manifest":
        manifest.write_text(manifest.read_text().replace('"seconds": 2', '"seconds": 3'))
    elif harm == "torn manifest":
        manifest.write_bytes(manifest.read_bytes()[:20])
    else:
        manifest.unlink()
    assert store.newest() is None
    assert "not what its digest says" in caplog.text
    (tmp_path / "older").rename(tmp_path / "k" / older.name)
    assert read(store) == (5, "older")


def test_one_holder_at_a_time_and_the_next_one_gets_a_new_lock(tmp_path: Path) -> None:
    """A second holder waits, or gives up when `on_wait` raises; the file is gone when nobody holds it."""
    path = tmp_path / "k.lock"
    inside, order = threading.Event(), []

    def second() -> None:
        with training_lock(path, inside.set):
            order.append("second")

    def give_up() -> None:
        raise TrainingCancelledError("enough")

    with training_lock(path, give_up):
        thread = threading.Thread(target=second)
        thread.start()
        assert inside.wait(5)
        with pytest.raises(TrainingCancelledError), training_lock(path, give_up):
            order.append("never")
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert not path.exists()


def losses(iteration: int) -> dict[str, float]:
    """A curve with its minimum at 12, and a metric that is undefined now and then."""
    ic = math.nan if iteration % 3 else iteration / 100
    return {"train.loss": 1 / iteration, "valid.loss": 1 + (iteration - 12) ** 2 / 1000, "valid.ic": ic}


def train(session: TrainingSession, crash_at: int = 0) -> TrainingSession:
    """A loop as families have it; dies before its `crash_at`-th iteration."""
    session.expect(100)
    restored = session.restore()
    done = restored.iteration if restored else 0
    while True:
        done += 1
        if done == crash_at:
            raise KeyboardInterrupt
        verdict = session.iteration(done, losses(done))
        session.checkpoint(done, lambda folder: np.save(folder / "x.npy", np.zeros(1)))
        if verdict.stop:
            return session


@pytest.mark.parametrize("crash_at", range(2, 43, 5))
def test_a_resumed_session_is_the_undisturbed_one(tmp_path: Path, crash_at: int) -> None:
    """Same curves, same best iteration, same end (30 iterations after the best, 12), wherever it was cut."""
    calm = train(TrainingSession(config(), links=Links(checkpoints=CheckpointFolder(tmp_path / "calm"))))
    store = CheckpointFolder(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(TrainingSession(config(), links=Links(checkpoints=store)), crash_at)
    seen: list[int] = []
    links = Links(checkpoints=store, observers=[lambda done, _: seen.append(done)])
    resumed = train(TrainingSession(config(), links=links))
    assert resumed.curves() == calm.curves()
    assert (resumed.best_iteration, len(resumed.history)) == (calm.best_iteration, len(calm.history)) == (12, 42)
    assert seen == list(range((crash_at - 1) // 7 * 7 + 1, 43))
    assert resumed.seconds > 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5, math.nan], r"valid\.loss is nan at iteration 2 and was 0\.5 at first.*learning_rate"),
        ([0.5, math.inf], r"valid\.loss is inf at iteration 2"),
        ([math.inf], r"valid\.loss is inf at iteration 1"),
        ([0.5, 1e3, 5.1e5], r"valid\.loss is 510000 at iteration 3"),
        ([-0.5, -6e5], r"valid\.loss is -600000 at iteration 2"),
    ],
)
def test_a_diverging_loss_ends_the_training_after_its_event(values: list[float], said: str) -> None:
    """NaN, infinite, or a million times the first; the iteration is in the stream before the error is raised."""
    events: list[tuple[str, dict]] = []
    session = TrainingSession(config(), links=Links(events=lambda kind, payload: events.append((kind, dict(payload)))))
    with pytest.raises(TrainingError, match=said):
        for done, value in enumerate(values, 1):
            session.iteration(done, {"valid.loss": value})
    assert [payload["iteration"] for _, payload in events] == list(range(1, len(values) + 1))


def test_a_loss_may_grow_a_lot_and_an_ic_may_be_undefined() -> None:
    """Neither is a divergence; a first loss of zero allows losses up to one."""
    session = TrainingSession(config())
    for done, (loss, ic) in enumerate([(0.0, math.nan), (0.9, math.nan), (1e-9, 0.1)], 1):
        session.iteration(done, {"train.loss": loss, "valid.ic": ic})
    assert len(session.history) == 3


def test_the_time_left_is_the_pace_times_what_is_left() -> None:
    """Unknown after the first iteration; then the mean of the later ones. Percent counts iterations."""
    events: list[dict] = []
    session = TrainingSession(config(), links=Links(events=lambda _, payload: events.append(dict(payload))))
    session.expect(200)
    for done in range(1, 6):
        threading.Event().wait(0.5 if done == 1 else 0.05)
        session.iteration(done, {})
    assert [each["percent"] for each in events] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert events[0]["eta_s"] is None
    assert events[-1]["eta_s"] == pytest.approx(0.05 * 195, rel=0.5)


def test_curves_have_a_value_an_iteration() -> None:
    """None where a metric was not computed or is undefined, so that a place is an iteration."""
    session = TrainingSession(config())
    for done in range(1, 6):
        metrics = {
            "train.loss": 1 / done,
            **({"valid.ic": math.nan if done == 2 else 0.1 * done} if done % 2 == 0 else {}),
        }
        session.iteration(done, metrics)
    assert session.curves() == {
        "loss": {"train": [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]},
        "ic": {"valid": [None, None, None, 0.4, None]},
    }
