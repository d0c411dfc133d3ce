"""Rollouts, aborts and rollbacks whose process is killed: `python -m tests.security.rollout_faults`.

As `deployment_faults.py`: each process is a fork, and the one that a trial is about, which leads the rollouts or serves
the scores, is killed at its n-th edge. All the time a client asks the service. Afterwards the record is looked at once,
then the work is done again, and evaluations lead everything to its end. Arguments: the home, how many kills, and the
names of the scenarios (none: all).

The home holds registered versions: 1, 2 and 4 are good, 3 is one that the service cannot load.
"""

import ctypes
import itertools
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.serving import client as client_module
from mlops_tasks.serving.deployment import deploy_blue_green, roll_back, withdraw_model
from mlops_tasks.serving.probation import judge_champion, probation_of
from mlops_tasks.serving.rollout import is_of_candidate
from mlops_tasks.serving.strategies import Wanted, abort, advance_rollouts, deploy, has_taken_up
from mlops_tasks.state.quality_looks import record_quality_look
from mlops_tasks.state.rollouts import rollout_at_work
from mlops_tasks.state.tables import QualityLook
from mlops_tasks.states import Strategy
from tests.data.killing import in_fork
from tests.security.deployment_faults import (
    PATIENCE_S,
    PR_SET_PDEATHSIG,
    TABLE,
    Bench,
    look_at_status,
    rows_of,
    state_of,
    warm_up,
    wrongs_of_history,
)
from tests.security.faults import Edges, Fault, Trial, draw

BAD = 3
UNITS = [f"desk-{number}" for number in range(8)]
STEPS = (
    "SELECT rollout_id, sequence, model_version, state, step, champion_version, plan, reason FROM rollout_step "
    "ORDER BY id"
)
TOLD = "SELECT kind, sum(tell) FROM alert_event GROUP BY kind, subject, episode"
AT_WORK = ("holding", "promoting")
DECIDED = ("promoted", "completed", "rejected", "aborted")
FOLLOWING = {
    "waiting": (*AT_WORK, "promoted", "rejected", "aborted"),
    "holding": (*AT_WORK, *DECIDED),
    "promoting": ("promoting", "promoted", "rejected", "aborted"),
}

Work = Callable[[Settings], object]


def monitored(settings: Settings) -> None:
    """What `monitor_champion` does about champion and candidates."""
    judge_champion(settings)
    advance_rollouts(settings)


def aborted(settings: Settings) -> None:
    """By a person, who finds that it has been done already where that was so."""
    if rollout_at_work(settings) is not None:
        abort(settings, "not today", by="ann")


def _wait_for_scores(settings: Settings) -> None:
    """Until the service has taken up the step of the rollout in progress."""
    until = time.monotonic() + PATIENCE_S
    at_work = rollout_at_work(settings)
    assert at_work is not None
    while not has_taken_up(settings, at_work):
        assert time.monotonic() < until
        time.sleep(0.05)


def _found_worse(settings: Settings) -> None:
    """A look has found the champion worse than the one before."""
    probation = probation_of(settings, 2)
    assert probation is not None
    look = QualityLook(
        subject=probation.subject,
        number=1,
        model_version=2,
        rival_version=1,
        data_version="d",
        worse=True,
        said="its rank IC is below that of version 1",
        result={},
    )
    assert record_quality_look(settings, look)


def _deployed(version: int) -> Work:
    return lambda settings: deploy_blue_green(settings, version)


def _asked(version: int, strategy: Strategy) -> Work:
    return lambda settings: deploy(settings, Wanted(version, strategy))


@dataclass(frozen=True)
class Alone:
    """What is done while the service is away.

    An evaluation takes every step that is due, so one that is slower than the service's next look takes the step after
    it too. How far a rollout has come before a trial must not depend on how busy the machine is.
    """

    work: Work


Before = Work | Alone
_CANARY: tuple[Before, ...] = (_deployed(1), Alone(_asked(2, Strategy.CANARY)), _wait_for_scores)


@dataclass(frozen=True)
class Scenario:
    """Something that is done about rollouts."""

    name: str
    before: tuple[Before, ...]
    work: Work
    champion: int
    """When all is over."""
    ends: tuple[tuple[int, str], ...] = ()
    """Versions and last states of the rollouts then."""
    told: tuple[str, ...] = ()
    """Kinds of alerts that people must have by then."""


SCENARIOS = (
    Scenario("blue-green", _CANARY[:1], _asked(2, Strategy.BLUE_GREEN), 2),
    Scenario("canary begins", _CANARY[:1], _asked(2, Strategy.CANARY), 2, ((2, "promoted"),)),
    Scenario("canary's next step", _CANARY, monitored, 2, ((2, "promoted"),)),
    Scenario("canary's promotion", (*_CANARY, Alone(monitored), _wait_for_scores), monitored, 2, ((2, "promoted"),)),
    Scenario("canary's abort", _CANARY, aborted, 1, ((2, "aborted"),)),
    Scenario(
        "canary's rejection",
        (*_CANARY, lambda settings: withdraw_model(settings, 2, "its vendor was wrong", "ann")),
        monitored,
        1,
        ((2, "rejected"),),
        ("rollout_rejected",),
    ),
    Scenario(
        "shadow's end",
        (_deployed(1), Alone(_asked(2, Strategy.SHADOW)), _wait_for_scores),
        monitored,
        1,
        ((2, "completed"),),
    ),
    Scenario(
        "turn of one that waited",
        (*_CANARY, Alone(_asked(4, Strategy.BLUE_GREEN)), Alone(aborted)),
        monitored,
        4,
        ((2, "aborted"), (4, "promoted")),
    ),
    Scenario(
        "turn of one that fails",
        (*_CANARY, Alone(_asked(BAD, Strategy.BLUE_GREEN)), Alone(aborted)),
        monitored,
        1,
        ((2, "aborted"), (BAD, "rejected")),
        ("rollout_rejected",),
    ),
    Scenario("direct beside a canary", _CANARY, _asked(4, Strategy.DIRECT), 4, ((2, "aborted"),), ("rollout_aborted",)),
    Scenario(
        "rollback beside a canary",
        (_deployed(1), _deployed(4), Alone(_asked(2, Strategy.CANARY)), _wait_for_scores),
        lambda settings: roll_back(settings, 1),
        1,
        ((2, "aborted"),),
        ("rollout_aborted",),
    ),
    Scenario(
        "champion that proves worse",
        (_deployed(1), _deployed(2), _found_worse),
        monitored,
        1,
        told=("champion_rolled_back",),
    ),
)


class RolloutBench(Bench):
    """Whose snapshots are the states from which the scenarios begin."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.calm: dict[str, dict[str, Any]] = {}
        """What each scenario's work leaves when nobody is killed."""

    def prepare_for(self, scenarios: Sequence[Scenario]) -> None:
        """Make the service's own home and the snapshots."""
        self.elsewhere.mkdir()
        for name in ("data", "features"):
            (self.elsewhere / name).symlink_to(self.settings.home / name)
        self.save("empty")
        for scenario in scenarios:
            self.reset("empty")
            self.start_service(Fault("", 0))
            for done in scenario.before:
                work = done
                if isinstance(done, Alone):
                    self.stop_service()
                    work = done.work
                ended = in_fork(partial(work, self.settings))  # type: ignore[arg-type]
                assert ended == 0, (scenario.name, whole_state(self.settings.home))
                if not self.is_service_alive():
                    self.start_service(Fault("", 0))
            self.stop_service()
            self.save(scenario.name)

    def edges_of(self, scenario: Scenario, process: str) -> list[str]:
        """The edges that a calm run crosses in one of its processes."""
        counted = self.settings.home / "edges.json"
        counted.unlink(missing_ok=True)
        self.reset(scenario.name)
        self.start_service(Fault("", 0), counted if process == "service" else None)
        in_fork(lambda: self.work(scenario, Fault("", 0), counted if process == "work" else None))
        self.stop_service()
        self.calm[scenario.name] = whole_state(self.settings.home)
        return json.loads(counted.read_text())  # type: ignore[no-any-return]

    def work(self, scenario: Scenario, fault: Fault, count_file: Path | None = None) -> None:
        """The scenario's work, with a fault."""
        Edges(fault, count_file).install(self.settings)
        scenario.work(self.settings)

    def start_client(self) -> int:
        """A client of many units, who notes every answer and waits out a service that is away; its process."""
        self.answers.write_text("")
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            try:
                with self.answers.open("a", buffering=1) as file:
                    ask_for_ever(self.settings, lambda answer: file.write(json.dumps(answer) + "\n"))
            finally:
                os._exit(1)
        return child

    @property
    def answers(self) -> Path:
        """What the client was answered: unit, version, standing."""
        return self.settings.home / "answers"

    def kill_and_go_on(self, trial: Trial[Scenario]) -> dict[str, Any]:
        """One trial, from a known state to the end of everything."""
        scenario, calm, home = trial.scenario, Fault("", 0), self.settings.home
        self.reset(scenario.name)
        before = whole_state(home)
        self.start_service(trial.fault if trial.process == "service" else calm)
        client = self.start_client()
        try:
            ended = in_fork(lambda: self.work(scenario, trial.fault if trial.process == "work" else calm))
            if trial.by == "status":
                assert in_fork(look_at_status) == 0
            if trial.process == "service" or not self.is_service_alive():
                self.stop_service()
                self.start_service(calm)
            for _ in range(2):  # one was perhaps under way
                self.looked.unlink(missing_ok=True)
                self.wait_for_first_look()
            settled = self.wait_until_served()
            between = whole_state(home)
            in_fork(partial(scenario.work, self.settings))  # type: ignore[arg-type]
            self.lead_to_the_end()
            served = self.wait_until_served()
            last = whole_state(home)
        finally:
            os.kill(client, signal.SIGKILL)
            os.waitpid(client, 0)
            self.stop_service()
        wrong = [
            *(f"after the kill: {each}" for each in wrongs(before, between)),
            *(f"after the kill: {each}" for each in self.between_states(trial, before, between)),
            *(f"at the end: {each}" for each in wrongs(before, last)),
            *wrong_answers(last, [json.loads(line) for line in self.answers.read_text().splitlines()]),
        ]
        ends = tuple((each[-1]["version"], each[-1]["state"]) for each in last["rollouts"].values())
        if (last["alias"], ends) != (scenario.champion, scenario.ends):
            wrong.append(f"it ended with champion {last['alias']} and {ends}")
        if untold := set(scenario.told).difference(kind for kind, times in last["told"] if times):
            wrong.append(f"nobody was told {untold}")
        if often := [kind for kind, times in last["told"] if times > 1]:
            wrong.append(f"people were told more than once {often}")
        if not settled or not served:
            wrong.append(f"the service does not serve what the alias names: {settled}, {served}")
        return {
            "scenario": scenario.name,
            "process": trial.process,
            "edge": trial.edge,
            "after": trial.fault.after,
            "by": trial.by,
            "ended": "killed" if ended == signal.SIGKILL else "done" if ended == 0 else "failed",
            "alias": [before["alias"], between["alias"], last["alias"]],
            "states": {str(each[-1]["version"]): [row["state"] for row in each] for each in last["rollouts"].values()},
            "wrong": wrong,
        }

    def between_states(self, trial: Trial[Scenario], before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """Whether what was left is anything but the beginning, the end, or a recorded step in between."""
        calm, found = self.calm[trial.scenario.name], []
        if after["alias"] not in (before["alias"], trial.scenario.champion):
            found.append(f"the alias names {after['alias']}, neither {before['alias']} nor {trial.scenario.champion}")
        taken, whole = (_taken(before, each) for each in (after, calm))
        if trial.process == "work" and any(ours != theirs for ours, theirs in zip(taken, whole, strict=False)):
            found.append(f"the steps {taken} are not those of {whole}")
        return found

    def wait_until_served(self) -> bool:
        """Whether, within the service's next looks, it serves the version that the alias names, and no other
        candidate than that of the rollout in progress."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            state, health = whole_state(self.settings.home), self.health()
            holding = [each[-1] for each in state["rollouts"].values() if each[-1]["state"] in AT_WORK]
            expected = [each["version"] for each in holding if each["champion"] == state["alias"]]
            found = [] if health.get("candidate") is None else [health["candidate"].get("model_version")]
            if health.get("model_version") == state["alias"] and found in ([], expected):
                return True
            time.sleep(0.05)
        return False

    def health(self) -> dict[str, Any]:
        """What the service says; nothing where it does not answer."""
        try:
            answer = httpx.get(f"{address(self.settings)}/health", headers=_token(), timeout=5)
            return answer.json()  # type: ignore[no-any-return]
        except httpx.HTTPError:
            return {}

    def lead_to_the_end(self) -> None:
        """Evaluate again and again until no rollout is undecided."""
        until = time.monotonic() + PATIENCE_S
        while True:
            assert in_fork(partial(monitored, self.settings)) == 0
            if all(each[-1]["state"] in DECIDED for each in whole_state(self.settings.home)["rollouts"].values()):
                return
            assert time.monotonic() < until, "a rollout is not decided"
            time.sleep(0.1)


def address(settings: Settings) -> str:
    """Of the service."""
    return f"http://127.0.0.1:{settings.stack.scoring_port}"


def _token() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['MLOPS_SCORING_TOKEN']}"}


def ask_for_ever(settings: Settings, note: Callable[[list[Any]], object]) -> None:
    """Ask for scores, as one unit after the other."""
    with httpx.Client(base_url=address(settings), headers=_token(), timeout=10) as http:
        while True:
            for unit in UNITS:
                try:
                    answer = http.post("/v1/score", json={"instruments": ["S001"]}, headers={"X-Unit": unit})
                except httpx.HTTPError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 503:  # it has begun a moment ago
                    time.sleep(0.05)
                    continue
                said = answer.raise_for_status().json()
                note([unit, said["model_version"], said["standing"]])
                time.sleep(0.02)


def whole_state(home: Path) -> dict[str, Any]:
    """As `state_of`, with the steps of each rollout, and how often each episode of alerts was told, with its kind."""
    record = home / "state" / "state.db"
    rollouts: dict[str, list[dict[str, Any]]] = {}
    there = bool(rows_of(record, TABLE))
    for rollout_id, sequence, version, state, step, champion, plan, reason in rows_of(record, STEPS) if there else ():
        rollouts.setdefault(rollout_id, []).append(
            {
                "id": rollout_id,
                "sequence": sequence,
                "version": version,
                "state": state,
                "step": step,
                "champion": champion,
                "shares": json.loads(plan)["shares"],
                "reason": reason,
            }
        )
    told = [tuple(row) for row in rows_of(record, TOLD)] if there else []
    return {**state_of(home), "rollouts": rollouts, "told": told}


def _taken(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Steps of rollouts since then; not that the service itself has found one that it cannot load."""
    rows = [
        (each["id"], each["version"], each["state"], each["step"])
        for rollout_id, steps in after["rollouts"].items()
        for each in steps[len(before["rollouts"].get(rollout_id, [])) :]
        if (each["version"], each["state"]) != (BAD, "rejected")
    ]
    ids = {rollout_id: str(number) for number, rollout_id in enumerate(after["rollouts"])}
    return [(ids[rollout_id], *more) for rollout_id, *more in rows]


def wrongs(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is wrong with alias, deployments and rollouts, at any time at which no deployment is at work."""
    found = wrongs_of_history(before, after)
    at_work = [each[-1] for each in after["rollouts"].values() if each[-1]["state"] in AT_WORK]
    if len(at_work) > 1:
        found.append(f"two rollouts are at work: {at_work}")
    for rollout_id, steps in after["rollouts"].items():
        last, states = steps[-1], [each["state"] for each in steps]
        if steps[: len(before["rollouts"].get(rollout_id, []))] != before["rollouts"].get(rollout_id, []):
            found.append(f"the history of a rollout was changed: {states}")
        if [each["sequence"] for each in steps] != list(range(1, len(steps) + 1)) or any(
            now not in FOLLOWING.get(then, ()) for then, now in itertools.pairwise(states)
        ):
            found.append(f"the history of a rollout makes no sense: {states}")
        if last["state"] == "promoted" and last["version"] not in after["proven"]:
            found.append(f"version {last['version']} was promoted without a proof")
        if last["state"] in ("rejected", "aborted") and not last["reason"]:
            found.append(f"version {last['version']} was {last['state']} without a reason")
    return found


def wrong_answers(state: dict[str, Any], answers: Sequence[Sequence[Any]]) -> list[str]:
    """What the client was answered by a model that had no right to: neither champion, nor under proof, nor drawn."""
    champions = {step[0] for step in state["steps"] if step[1] in ("started", "serving")} - {BAD}
    found = []
    for unit, version, standing in answers:
        of_version = [each for each in state["rollouts"].values() if each[0]["version"] == version]
        drawn = any(_is_drawn(each, unit) for each in of_version)
        if not (drawn if standing == "canary" else version in champions):
            found.append(f"{unit} was answered by version {version} as {standing}")
    return sorted(set(found)) if answers else ["the client was answered nothing"]


def _is_drawn(steps: Sequence[dict[str, Any]], unit: str) -> bool:
    """Whether a candidate may have answered a unit: by the largest share that it has reached."""
    shares = steps[0]["shares"]
    reached = [shares[min(each["step"], len(shares) - 1)] for each in steps if shares and each["state"] in AT_WORK]
    drawn = _Drawn(steps[0]["id"], max(reached, default=0.0))
    return is_of_candidate(drawn, f"unit {unit}")  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Drawn:
    rollout_id: str
    share: float


def trials(bench: RolloutBench, count: int, scenarios: Sequence[Scenario]) -> list[Trial[Scenario]]:
    """So many of all kills at all edges, drawn by a fixed seed; every scenario and process has its share."""
    generator, all_of = random.Random(20), []
    for scenario in scenarios:
        for process in ("work", "service"):
            edges = bench.edges_of(scenario, process)
            group = [
                Trial(scenario, process, Fault("kill", at, after), edge, generator.choice(["service", "status"]))
                for at, edge in enumerate(edges, 1)
                for after in (False, True)
            ]
            all_of.append(group)
    return draw(all_of, count, generator)


def main(home: Path, count: int, names: Sequence[str]) -> None:
    """Try so many kills."""
    os.environ["MLOPS_HOME"] = str(home)
    client_module.FIRST_PAUSE_S = 0.02
    logging.disable(logging.CRITICAL)
    bench = RolloutBench(load_settings())
    warm_up(bench.settings)
    scenarios = [each for each in SCENARIOS if each.name in names or not names]
    bench.prepare_for(scenarios)
    for trial in trials(bench, count, scenarios):
        try:
            result = bench.kill_and_go_on(trial)
        except Exception:
            bench.stop_service()
            result = {**asdict(trial.fault), "edge": trial.edge, "scenario": trial.scenario.name}
            result |= {"process": trial.process, "wrong": [traceback.format_exc()]}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
