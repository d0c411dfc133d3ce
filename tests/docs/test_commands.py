"""Every command of the README, the operations page and the user guide runs, as it is written."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_tasks import cli
from mlops_tasks.cli import verbs
from mlops_tasks.config import PROJECT, load_settings
from mlops_tasks.data.vintages import write_vintage
from mlops_tasks.errors import VintageRejectedError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.serving.client import ScoringClient
from tests.commands import Command, commands_of, in_bash
from tests.data.market import make_bars, save, sync
from tests.data.test_approvals import restated
from tests.data.test_releases import market, validated
from tests.operation import bars, free_ports, make_champion
from tests.plugins.runs import Runs
from tests.registry.conftest import migrated_mlflow, new_home, new_operation, vintage_template
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec
from tests.serving.conftest import RunningService

__all__ = ["migrated_mlflow", "vintage_template"]

PAGES = ("README.md", "docs/operations.md", "docs/user_interface.md", "docs/users.md", "docs/lineage.md")
COMMANDS = [command for page in PAGES for command in commands_of(page)]
CHAIN, HERE = "tests/e2e/test_chain.py", "tests/docs/test_commands.py"

ELSEWHERE = {
    "make up": f"{CHAIN}::test_one_command_leads_from_bars_to_a_served_champion",
    "make up SOURCE=/data/bars.parquet": f"{CHAIN}::test_one_command_leads_from_bars_to_a_served_champion",
    "make up PROFILE=celery": "tests/e2e/test_workers.py::test_a_day_on_workers_ends_as_any_other",
    "make status": f"{CHAIN}::test_a_second_run_on_unchanged_bars_changes_nothing",
    "make down": f"{CHAIN}::test_the_end_leaves_nothing_of_ours_and_everything_else",
    "alphaops alerts *": "tests/test_cli_alerts.py::test_an_alert_from_its_list_to_its_end",
    "alphaops keys *": "tests/test_cli_keys.py::test_a_key_from_its_making_to_its_end",
    "alphaops users *": "tests/security/test_roles.py::test_the_commands_of_the_page_about_users",
    "alphaops withdraw-model*": "tests/security/registry/test_record.py::test_a_model_is_withdrawn_by_hand",
    **dict.fromkeys(
        ("alphaops trace *", "alphaops lineage *", "alphaops compatibility *"),
        "tests/provenance/test_trace.py::test_the_commands_of_the_page",
    ),
    "alphaops rollback*": "tests/serving/test_deployment.py::test_rollbacks_go_back_step_by_step",
    "curl -H *": f"{HERE}::test_the_request_of_the_readme_is_answered",
    "export PATH*": f"{HERE}::test_the_launcher_works_from_any_folder_and_by_a_link",
    **dict.fromkeys(
        ("AIRFLOW=*", "LOGIN=*", "TOKEN=*", "curl -sf *"),
        "tests/plugins/test_commands.py::test_the_commands_of_the_api",
    ),
}
"""Commands, or how they begin, and the test that runs them where there is what they need."""
NOT_RUN = {
    "git clone <this repository> alphaops && cd alphaops": "what it gets is what runs this test",
    "make env": "the machine that tests has made its environment by it",
    "make env TORCH=cuda": "3.4 GB, for a GPU",
    "make test": "it is what runs this test",
    "make bench": "tests/benchmarks has its benchmarks, minutes each",
    "make up SOURCE=/data/bars/ UNIVERSE=/data/csi300.txt TRAIN=2010-01-04:2014-12-31 VALID=2015-01-01:2016-12-31 "
    "TEST=2017-01-01:2020-08-31": "ten years of bars, which are no part of the project",
    "make up SOURCE=...": "it stands for the others",
    "alphaops models table --seeds 3 --peers": "over an hour; tests/experiments/test_model_table.py makes a small one",
}
"""What is checked for its words alone, and why."""
WHERE_VINTAGES_ARE = ("quarantine", "release", "vintages", "diff", "approve", "checkout", "doctor")


def elsewhere(text: str) -> str | None:
    """The test elsewhere that runs a command."""
    for known, test in ELSEWHERE.items():
        if text == known or (known.endswith("*") and text.startswith(known[:-1])):
            return test
    return None


VERBS = sorted(
    {c.text for c in COMMANDS if c.text.startswith("alphaops ") and c.text not in NOT_RUN and not elsewhere(c.text)},
    key=lambda text: (" delete " in text, text),  # what is deleted is shown before
)


def words(text: str, values: Mapping[str, str]) -> list[str]:
    """Of an `alphaops` command, without its name."""
    return shlex.split(Command("", text).filled(values))[1:]


def status_of(arguments: list[str]) -> int:
    """Of the command line in this process."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@dataclass(frozen=True)
class Home:
    """Settings as variables, and what the placeholders of commands stand for."""

    environ: Mapping[str, str]
    values: Mapping[str, str]


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a vintage in use, one that the policy blocked, and a newest validation that kept something back."""
    folder = tmp_path_factory.mktemp("synced")
    ports = zip(("AIRFLOW", "MLFLOW", "SCORING"), free_ports(3), strict=True)
    environ = {
        **{f"MLOPS_STACK__{name}_PORT": str(port) for name, port in ports},
        "MLOPS_HOME": str(folder / "home"),
        "MLOPS_DATA__ALLOWED_FOLDERS": str(folder),
        "MLOPS_DATA__SUITE_PAGES": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        old = sync(save(make_bars(), folder / "a.parquet"))["data_version"]
        with pytest.raises(VintageRejectedError):
            sync(save(restated(), folder / "b.parquet"))
        (new,) = {path.stem for path in load_settings().data_dir.glob("vintages/*.dvc")} - {old}
        validated(market(folder)[1])
    return Home(
        environ,
        {
            "old": old,
            "new": new,
            "version": new,
            "rule": "unadjusted_split",
            "name": "S01",
            "file": str(folder / "a.parquet"),
        },
    )


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Home]:
    """A home with features of two vintages, a champion in service, and a training that runs."""
    with pytest.MonkeyPatch.context() as patch:
        operation = new_operation(new_home(tmp_path_factory.mktemp("served"), migrated_mlflow, patch), vintage_template)
        settings = operation.settings
        version = operation.register(Spec(key="a" * 16))
        make_champion(settings, version)
        known = bars()
        older = write_vintage(settings, known[known["datetime"] <= DAYS[99]].reset_index(drop=True), None, {})
        store = FeatureStore(settings)
        old, spare = (store.compute(older, name).feature_version for name in ("alpha158", "alpha360"))
        run = Runs(settings, datetime(2026, 3, 2, 9, 30, tzinfo=UTC)).open()
        running = RunningService(settings)
        with ScoringClient(settings) as client:
            client.refresh()
        (settings.home / "secrets" / "scoring_token").write_text("token-of-the-tests")
        environ = {name: value for name, value in os.environ.items() if name.startswith("MLOPS_")}
        values = {"old": old, "new": operation.feature_version, "version": spare, "run": run.run_id}
        yield Home(environ, {**values, "number": str(version)})
        running.stop()


@pytest.mark.parametrize("text", VERBS)
def test_a_verb_does_what_is_written(
    text: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends well and says something."""
    home: Home = request.getfixturevalue("synced" if text.split()[1] in WHERE_VINTAGES_ARE else "served")
    for name, value in home.environ.items():
        monkeypatch.setenv(name, value)
    status = status_of(words(text, home.values))
    said = capsys.readouterr()
    assert status == 0, said
    assert said.out.strip()


def test_every_command_is_run_or_has_a_reason_not_to_be() -> None:
    """Each is a verb that is run here, has a test elsewhere that is there, or stands in the short list; no list is
    longer than the pages."""
    texts = {command.text for command in COMMANDS}
    known = {text for text in texts if text in VERBS or text in NOT_RUN or elsewhere(text)}
    assert texts - known == set()
    assert set(NOT_RUN) <= texts
    used = {test for text in texts if (test := elsewhere(text))}
    assert used == set(ELSEWHERE.values())
    for test in used:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (PROJECT / path).read_text(), test


@pytest.mark.parametrize("page", sorted(path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("docs/*.md")))
def test_the_words_of_every_page_are_those_of_the_command_line(page: str) -> None:
    """Also of pages whose commands are not run: verbs and options are there."""
    for command in [*commands_of(page), *commands_of("README.md")]:
        if command.text.startswith("alphaops ") and "--help" not in command.text:
            values = {"model": "lightgbm", "number": "7"}
            filled = Command(page, command.text).filled({**dict.fromkeys(command.placeholders(), "x"), **values})
            verbs._parser().parse_args(shlex.split(filled)[1:])


def test_what_make_is_told_is_understood() -> None:
    """`make -n`, on the words of each command: the target is there, and its variables reach the recipe."""
    for command in {c.text for c in COMMANDS if c.text.startswith("make ")}:
        done = subprocess.run(
            ["make", "-n", *shlex.split(command)[1:]], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)


def test_the_launcher_works_from_any_folder_and_by_a_link(tmp_path: Path) -> None:
    """`alphaops` is found as the README says, with nothing activated; without an environment it says what to do."""
    (export,) = (command for command in COMMANDS if command.text.startswith("export PATH"))
    environ = {"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    (tmp_path / "link").symlink_to(PROJECT / "bin" / "alphaops")
    script = (
        f"cd {shlex.quote(str(PROJECT))} && {export.text} && cd {tmp_path} && alphaops --help && ./link tune --help"
    )
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: alphaops " in done.stdout and "usage: alphaops tune " in done.stdout
    (tmp_path / "bin").mkdir()
    copy = tmp_path / "bin" / "alphaops"
    copy.write_bytes((PROJECT / "bin" / "alphaops").read_bytes())
    copy.chmod(0o755)
    refused = subprocess.run([str(copy)], env=environ, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and f"run make env in {tmp_path}" in refused.stderr


def test_the_request_of_the_readme_is_answered(served: Home, tmp_path: Path) -> None:
    """As it is written, in a folder whose `var` is the home; only the port is another one."""
    (asked,) = (command for command in COMMANDS if command.text.startswith("curl -H"))
    (tmp_path / "var").symlink_to(served.environ["MLOPS_HOME"])
    port = served.environ["MLOPS_STACK__SCORING_PORT"]
    answer = json.loads(in_bash(asked.text.replace("8600", port).replace("AAPL", INSTRUMENTS[0]), tmp_path))
    assert [row["instrument"] for row in answer["scores"]] == [INSTRUMENTS[0]] and answer["missing"] == ["MSFT"]
