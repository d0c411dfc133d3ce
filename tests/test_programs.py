"""Programs of tests in processes of their own, forked by the run's server or not, are told and ended as any process."""

import signal
import subprocess

import pytest

from tests import programs


def test_a_program_is_given_its_words_and_tells_its_end() -> None:
    """Arguments, standard input, both outputs apart, the exit status; an error that nobody catches is 1."""
    told = "import sys; print(sys.argv[1:], input()); print('aside', file=sys.stderr); sys.exit(3)"
    with programs.start(told, "a b", 2, stderr=subprocess.PIPE) as program:
        assert program.communicate("yes\n", timeout=60) == ("['a b', '2'] yes\n", "aside\n")
    assert program.returncode == program.wait() == 3
    failed = programs.run("raise ValueError('why')", timeout=60)
    assert (failed.returncode, failed.stdout) == (1, "") and failed.stderr.endswith("ValueError: why\n")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_ends_by_a_signal(sent: signal.Signals) -> None:
    """It runs until then, and its status says which."""
    program = programs.start("import time; print('begun', flush=True); time.sleep(600)")
    assert program.stdout is not None and program.stdout.readline() == "begun\n"
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(timeout=0.01)
    program.send_signal(sent)
    assert program.wait(timeout=60) == -sent
    program.kill()


def test_a_program_has_the_environment_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what differs in what libraries read while they are imported, for which nothing is forked."""
    monkeypatch.setenv("MLOPS_WORD", "one")
    show = "import os; print(os.environ.get('MLOPS_WORD'), os.environ.get('OMP_WAIT_POLICY'))"
    assert programs.run(show, timeout=60).stdout == "one None\n"
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert programs.run(show, timeout=60).stdout == "one passive\n"
