"""DAG files import nothing heavy, and are wired to stages that exist."""

import json
import os
import subprocess
import sys
from typing import get_args

import pytest
from jsonschema import Draft202012Validator

from mlops_tasks.config import PROJECT, load_settings
from mlops_tasks.error_policy import MOST_RETRIES
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.process import EVALUATION_POOL, HEAVY_POOL, STAGES, TRAINING_POOL, stage_function
from mlops_tasks.stack.environment import pool_slots
from mlops_tasks.stack.up import POOLS
from mlops_tasks.stage_results import keys_of
from mlops_tasks.states import Approval, Intervention, Strategy
from mlops_tasks.tuning.study import OBJECTIVES, SAMPLERS

DAGS = (
    "sync_market_data",
    "daily_retraining",
    "tune_models",
    "deploy_model",
    "operate_models",
    "monitor_champion",
    "replay_models",
    "analyze_ab_test",
    "compute_features",
)
DAG_FILES = {name + ".py": name for name in DAGS}
"""Every DAG file and its DAG; a file that is not listed here fails the test."""

HEAVY = (
    "pandas",
    "numpy",
    "qlib",
    "torch",
    "mlflow",
    "lightgbm",
    "sklearn",
    "shap",
    "great_expectations",
    "dvc",
    "numba",
    "optuna",
    "xgboost",
)

PARSE = """
import ast, inspect, json, os, sys, textwrap
import airflow
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.xcom_arg import XComArg
before = set(sys.modules)

def parsed_in_fork(home):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.environ["MLOPS_HOME"] = home
        with os.fdopen(writer, "w") as file:
            json.dump(parsed(DagBag(sys.argv[1])), file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        return json.load(file)

def of(task, name):
    return getattr(task, name, None) or getattr(task, "partial_kwargs", {}).get(name)

def references(value):
    if isinstance(value, XComArg):
        yield from ([task.task_id, key] for task, key in value.iter_references())
    elif isinstance(value, dict):
        for each in value.values():
            yield from references(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from references(each)

def given(task):
    if of(task, "stage"):
        for name, value in (of(task, "arguments") or {}).items():
            yield from ([name, *each] for each in references(value))
    elif of(task, "trigger_dag_id"):
        yield from (["conf", *each] for each in references([task.conf, task.trigger_run_id]))
    else:
        names = inspect.signature(task.python_callable).parameters
        for name, value in [*zip(names, task.op_args), *task.op_kwargs.items()]:
            yield from ([name, *each] for each in references(value))

def failing(task):
    told = getattr(task, "on_failure_callback", None) or task.partial_kwargs["on_failure_callback"]
    told = told if isinstance(told, (list, tuple)) else [told]
    return [type(task.retry_policy).__name__, [each.__name__ for each in told], task.retry_exponential_backoff]

def is_mapped(task):
    return task.is_mapped or task.get_closest_mapped_task_group() is not None

def subscripts(task):
    tree = ast.parse(textwrap.dedent(inspect.getsource(task.python_callable)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            yield [node.value.id, getattr(node.slice, "value", None)]

def parsed(bag):
    dags = {dag.dag_id: shown(dag) for dag in bag.dags.values()}
    new = sorted(set(sys.modules) - before)
    return {"dags": dags, "errors": bag.import_errors, "new": new}

def shown(dag):
    return {
        "doc": bool(dag.doc_md),
        "runs": [dag.max_active_runs, dag.catchup],
        "form": {name: dag.params.get_param(name).schema for name in dag.params},
        "defaults": dict(dag.params),
        "tasks": {task.task_id: [of(task, "stage"), task.retries] for task in dag.tasks},
        "failing": {task.task_id: failing(task) for task in dag.tasks},
        "pools": {task.task_id: of(task, "pool") for task in dag.tasks},
        "queues": {task.task_id: of(task, "queue") for task in dag.tasks},
        "limits": {task.task_id: of(task, "time_limit_s") for task in dag.tasks},
        "mapped": {task.task_id: of(task, "map_index_template") for task in dag.tasks if is_mapped(task)},
        "given": {task.task_id: list(given(task)) for task in dag.tasks},
        "subscripts": {task.task_id: list(subscripts(task)) for task in dag.tasks if of(task, "python_callable")},
        "edges": sorted([task.task_id, later] for task in dag.tasks for later in task.downstream_task_ids),
        "assets": [asset.name for asset in getattr(dag.timetable.asset_condition, "objects", [])],
        "rules": {task.task_id: [task.trigger_rule, task.is_teardown] for task in dag.tasks},
    }

print(json.dumps([parsed_in_fork(home) for home in json.loads(sys.argv[2])]))
"""


@pytest.fixture(scope="module")
def parses(tmp_path_factory):
    """What Airflow sees in the homes `plain`, `wrong` and `broken`, which differ in the user's own feature sets, and in
    `drifting`, where drift may start a retraining."""
    homes = {name: tmp_path_factory.mktemp(name) for name in ("plain", "wrong", "broken", "drifting")}
    (homes["drifting"] / "settings.yaml").write_text("drift: {retraining: {enabled: true}}\n")
    (homes["wrong"] / "feature_sets.yaml").write_text("mine: {version: 1}\n")
    (homes["broken"] / "feature_sets.yaml").write_text("mine: [\n")
    return dict(zip(homes, parse(*homes.values()), strict=True))


@pytest.fixture(scope="module")
def parsed(parses):
    return parses["plain"]


def parse(*homes):
    """What Airflow sees in each home, in a fork of a process that has parsed nothing."""
    return in_airflow(homes[0], PARSE, json.dumps([str(home) for home in homes]))


def in_airflow(home, script, *arguments):
    """What a script prints last in a fresh process, which is given the DAG folder."""
    environ = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "MLOPS_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    command = [sys.executable, "-c", script, str(PROJECT / "dags"), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_dag_file_is_known_and_parses(parsed):
    """No import error, no DAG file that nobody listed, a docstring for each."""
    assert parsed["errors"] == {}
    assert {p.name for p in (PROJECT / "dags").glob("*.py")} == set(DAG_FILES)
    assert set(parsed["dags"]) == set(DAG_FILES.values())
    assert all(dag["doc"] for dag in parsed["dags"].values())


def test_drift_starts_a_retraining_where_the_settings_say_so(parses):
    """By a task behind the monitor; elsewhere there is no such task, nor what it imports."""
    plain, drifting = (parses[name]["dags"]["monitor_champion"] for name in ("plain", "drifting"))
    assert set(plain["tasks"]) == {"monitor"} and parses["drifting"]["errors"] == {}
    assert drifting["edges"] == [["monitor", "start_retraining"]]
    asked = {key for _, _, stage, key in passed_on(drifting) if stage == "monitoring.monitor"}
    assert asked == {"retraining", "retraining_form"} <= keys_of(STAGES["monitoring.monitor"].result)


def test_the_form_offers_the_users_own_feature_sets(parses):
    """Whatever is wrong with them; a file that is no YAML hides all but the built-in ones and breaks no DAG."""

    def offered(found):
        assert found["errors"] == {}
        return found["dags"]["daily_retraining"]["form"]["feature_set"]["enum"]

    shipped = offered(parses["plain"])
    assert {"alpha158", "alpha360", "alpha158_oscillators"} <= set(shipped)
    assert set(offered(parses["wrong"])) == {*shipped, "mine"}
    assert offered(parses["broken"]) == ["alpha158", "alpha360"]


def test_parsing_imports_nothing_heavy(parsed):
    """Libraries of the stages stay out of Airflow's own processes."""
    assert [name for name in parsed["new"] if name.split(".")[0] in HEAVY] == []


def test_every_stage_of_the_chain_has_its_task_and_its_retries(parsed):
    """The DAGs together run every stage, none of them one stage twice, and each task may be tried again."""
    stages = [[stage for stage, _ in dag["tasks"].values() if stage] for dag in parsed["dags"].values()]
    assert {stage for each in stages for stage in each} == set(STAGES)
    assert all(len(each) == len(set(each)) for each in stages)
    tasks = [task for dag in parsed["dags"].values() for task in dag["tasks"].values()]
    assert {retries for _, retries in tasks} == {MOST_RETRIES}
    failing = [each for dag in parsed["dags"].values() for each in dag["failing"].values()]
    assert all(each == ["ErrorPolicy", ["tell_failed_task"], 2] for each in failing), failing


def passed_on(dag):
    """Which result of an earlier stage each task is given: task, argument, stage, key (None: the whole of it)."""
    for task, given in dag["given"].items():
        for argument, earlier, key in given:
            if (stage := dag["tasks"][earlier][0]) is not None:
                yield task, argument, stage, None if key == "return_value" else key


def test_no_dag_asks_for_a_key_that_a_stage_does_not_return(parsed):
    """Neither in what it passes on to other tasks, nor in the functions of its own small tasks."""
    asked = 0
    for dag in parsed["dags"].values():
        for task, argument, stage, key in passed_on(dag):
            known = keys_of(STAGES[stage].result)
            assert key is None or key in known, (task, stage, key)
            if key is None and task in dag["subscripts"]:
                keys = [key for name, key in dag["subscripts"][task] if name == argument]
                assert set(keys) <= known, (task, stage, keys)
                asked += len(keys)
            asked += key is not None
    assert asked > 30


def test_a_stage_takes_the_whole_result_of_another_as_what_that_returns(parsed):
    """The type of its argument is that of the other stage's result, one of several or an element of a list."""
    whole = 0
    for dag in parsed["dags"].values():
        for task, argument, stage, key in passed_on(dag):
            taker = dag["tasks"][task][0]
            if key is None and taker is not None:
                annotation = stage_function(taker).__annotations__[argument]
                assert set(parts(STAGES[stage].result)) <= set(parts(annotation)), (task, argument, stage)
                whole += 1
    assert whole > 10


def parts(annotation):
    """A type, or those that a union or a list is made of."""
    arguments = get_args(annotation)
    return [each for argument in arguments for each in parts(argument)] if arguments else [annotation]


def test_every_stage_says_what_it_returns():
    """By the type of its function's result."""
    for name, stage in STAGES.items():
        assert stage_function(name).__annotations__["return"] == stage.result, name


def test_the_chain_is_one_path_from_plan_to_comparison(parsed):
    """Nothing is logged without a certificate or deployed before the gate, nothing scored before the deployment;
    comparing and pruning, which hold the feature store for long, and the explanation, for which nobody waits, begin
    when the day's scores are there."""
    edges = {tuple(edge) for edge in parsed["dags"]["daily_retraining"]["edges"]}
    for edge in [
        ("plan_run", "compute_features"),
        ("compute_features", "certify_learning_data"),
        ("compute_features", "build_model.train_model"),
        ("certify_learning_data", "build_model.log_run"),
        ("build_model.train_model", "build_model.evaluate_model"),
        ("build_model.evaluate_model", "build_model.log_run"),
        ("build_model.log_run", "register_challenger"),
        ("register_challenger", "gate_challenger"),
        ("gate_challenger", "deploy_model"),
        ("deploy_model", "score_newest_date"),
        ("deploy_model", "check_drift"),
        ("score_newest_date", "compare_models"),
        ("score_newest_date", "prune_features"),
        ("score_newest_date", "explain_model"),
        ("gate_challenger", "profile_training"),
    ]:
        assert edge in edges


def test_a_deployment_by_hand_and_one_of_a_retraining_are_the_same_task(parsed):
    """The form has every strategy, and begins with the one of the settings."""
    for dag in ("daily_retraining", "deploy_model"):
        found = parsed["dags"][dag]
        assert found["tasks"]["deploy_model"][0] == "serving.deploy"
        name = "deployment_strategy" if dag == "daily_retraining" else "strategy"
        assert found["form"][name]["enum"] == [*Strategy]
        assert found["defaults"][name] == "blue_green"
        assert (found["form"]["approval"]["enum"], found["defaults"]["approval"]) == ([*Approval], "none")


def test_a_person_does_by_hand_what_the_form_says(parsed):
    """Every action, in one task; the harmless one is chosen until a person chooses."""
    found = parsed["dags"]["operate_models"]
    assert found["tasks"] == {"operate": ["serving.operate", MOST_RETRIES]}
    assert found["form"]["action"]["enum"] == [*Intervention]
    assert found["defaults"] == {"action": "advance", "version": None, "reason": None}


def test_the_search_is_one_path_from_plan_to_gate(parsed):
    """Nothing is searched without a certificate, and the gate's judgement is the end."""
    edges = {tuple(edge) for edge in parsed["dags"]["tune_models"]["edges"]}
    for edge in [
        ("plan_search", "compute_features"),
        ("compute_features", "certify_learning_data"),
        ("certify_learning_data", "choose_algorithm"),
        ("choose_algorithm", "create_study"),
        ("create_study", "list_workers"),
        ("list_workers", "run_worker"),
        ("run_worker", "finish_study"),
        ("finish_study", "log_study"),
        ("finish_study", "train_model"),
        ("train_model", "evaluate_model"),
        ("evaluate_model", "log_run"),
        ("log_run", "register_challenger"),
        ("register_challenger", "gate_challenger"),
    ]:
        assert edge in edges
    last = {after for _, after in edges} - {before for before, _ in edges}
    assert last == {"gate_challenger", "log_study"}


def test_what_is_chosen_is_replayed_one_by_one(parsed):
    """The sample, or the version of the form; each replay ends by itself before its task does."""
    found = parsed["dags"]["replay_models"]
    assert found["edges"] == [["choose_replays", "list_replays"], ["list_replays", "replay_model"]]
    assert found["tasks"]["replay_model"][0] == "registry.replay"
    assert list(found["mapped"]) == ["replay_model"]
    assert found["limits"]["replay_model"] > load_settings().replay.time_limit_s
    assert found["defaults"] == {"version": None, "anyway": False}


def test_features_are_computed_of_the_vintage_in_use_unless_the_form_says_otherwise(parsed):
    """One task, in the pool of what uses several cores."""
    found = parsed["dags"]["compute_features"]
    assert found["tasks"]["compute_features"][0] == "features.compute" and found["edges"] == []
    assert found["defaults"] == {"feature_set": load_settings().features.feature_set, "data_version": None}


def test_the_form_of_the_search_is_made_from_the_zoo(parsed):
    """Every model, `auto`, and every way of searching."""
    form = parsed["dags"]["tune_models"]["form"]
    assert form["model"]["enum"] == ["auto", *model_zoo()]
    assert set(form["sampler"]["enum"]) == {None, *SAMPLERS}
    assert set(form["objectives"]["items"]["enum"]) == set(OBJECTIVES)


def test_the_form_of_the_retraining_offers_every_model(parsed):
    """By name; what each of them takes is typed as text, for the run's plan to check."""
    form = parsed["dags"]["daily_retraining"]["form"]
    assert form["models"]["items"]["enum"] == form["models"]["examples"] == list(model_zoo())
    for field in ("hyperparameters", "stopping"):
        assert (form[field]["type"], form[field]["format"]) == (["null", "string"], "multiline")


def test_a_form_reads_at_a_glance(parsed):
    """No help is a wall of text; no field is for JSON, in whose editor Airflow's page takes letters for itself."""
    for dag in parsed["dags"].values():
        for name, schema in dag["form"].items():
            assert len(schema.get("description_md", "")) <= 300, name
            assert "object" not in schema.get("type", "string"), name
            assert schema.get("title"), name


UNFIT = {
    ("sync_market_data", "source"): [7, ["a"], "/" + "a" * 1000],
    ("sync_market_data", "universe"): [7, ["a"], "/" + "a" * 1000],
    ("sync_market_data", "approve_version"): [7, "abc", "0" * 17, "../../../x/000000", "0123456789ABCDEF"],
    ("sync_market_data", "approve_reason"): [7, ["a"]],
    ("compute_features", "feature_set"): ["", "none", None, ["alpha158"]],
    ("compute_features", "data_version"): [7, "abc", "0" * 17, "../../../x/000000", "0123456789ABCDEF"],
    ("deploy_model", "version"): [0, -1, "1", 1.5, True, [1]],
    ("deploy_model", "strategy"): ["", "none", None, 7],
    ("deploy_model", "approval"): ["", "no", None, True],
    ("operate_models", "action"): ["", "deploy", None, 7],
    ("operate_models", "version"): [0, -1, "1", 1.5, True, [1], 2**31],
    ("operate_models", "reason"): [7, ["a"], "a" * 2001, "a\0"],
    ("replay_models", "version"): [0, -1, "1", 1.5, True, [1]],
    ("replay_models", "anyway"): ["", "yes", None, 1],
    ("daily_retraining", "approval"): ["", "no", None, True],
    ("daily_retraining", "deployment_strategy"): ["", "none", None],
    ("daily_retraining", "owner"): ["", "ann and bob", "a" * 65, "a/b", "a\x1b", None],
    ("daily_retraining", "priority"): [101, -101, 1.5, "1", None],
    ("daily_retraining", "feature_set"): ["", "none", None, ["alpha158"]],
    ("daily_retraining", "hyperparameters"): [{}, 7],
    ("tune_models", "model"): ["", "os:system", None, ["linear"]],
    ("tune_models", "objectives"): [[], ["none"], "rank_ic"],
    ("tune_models", "sampler"): ["", "nothing", 7],
    ("tune_models", "pruner"): ["", "nothing", 7],
    ("tune_models", "folds"): [0, 21, 1.5],
    ("tune_models", "trials"): [0, 1.5, "9"],
    ("tune_models", "time_s"): [0, -1, "9"],
    ("tune_models", "memory_mb"): [0, -1, "9"],
    ("tune_models", "seed"): [-1, 1.5, "9"],
    ("tune_models", "horizon"): [0, 61, 1.5, "9"],
    ("tune_models", "owner"): ["", "ann and bob", "a" * 65],
    ("tune_models", "priority"): [101, -101],
}
"""What a field takes none of."""


@pytest.mark.parametrize(("dag", "field"), UNFIT)
def test_a_field_takes_nothing_of_another_kind(parsed, dag, field):
    """Airflow checks a form against these schemas before it makes a run, whoever has sent it; the defaults fit."""
    about = parsed["dags"][dag]
    schema = Draft202012Validator(about["form"][field])
    assert schema.is_valid(about["defaults"][field])
    assert [value for value in UNFIT[dag, field] if schema.is_valid(value)] == []


@pytest.mark.parametrize(("dag", "owner"), [("daily_retraining", "daily"), ("tune_models", "tuning")])
def test_a_form_says_how_its_trainings_share_the_machine(parsed, dag, owner):
    """Whose they are, and what goes first."""
    form, defaults = (parsed["dags"][dag][part] for part in ("form", "defaults"))
    assert {form[name]["section"] for name in ("owner", "priority")} == {"Machine"}
    assert form["priority"]["type"] == "integer"
    assert (defaults["owner"], defaults["priority"]) == (owner, 0)


def test_a_run_is_green_only_when_all_of_it_is(parsed):
    """Every task waits for the success of all before it, and none is a teardown, which Airflow does not count: so
    whatever fails, the last tasks fail with it. The data docs of a rejected vintage are rendered too, and nothing waits
    for them."""
    apart = {"render_docs": ["all_done_min_one_success", False]}
    for dag in parsed["dags"].values():
        assert all(rule == apart.get(task, ["all_success", False]) for task, rule in dag["rules"].items())
        assert not any(earlier in apart for earlier, _ in dag["edges"])


ASK = """
import json, sys
from types import SimpleNamespace
import airflow
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowSkipException
dags = DagBag(sys.argv[1]).dags
emit = dags["sync_market_data"].get_task("emit_market_data")
(asset,) = emit.outlets

def emitted(published, told):
    events = [SimpleNamespace(extra={"data_version": version}) for version in told]
    try:
        return [each.extra for each in emit.python_callable(published, inlet_events={asset: events})]
    except AirflowSkipException:
        return "skipped"

def triggered(dag_id, task_id, conf):
    dag = dags[dag_id]
    task = dag.get_task(task_id)
    task.stage = "no.stage"
    params = dict(dag.params) | conf
    try:
        context = {"dag": dag, "dag_run": SimpleNamespace(conf=conf), "params": params}
        task.execute({**context, "ti": SimpleNamespace(xcom_push=lambda key, value: None)})
    except Exception as error:
        return [type(error).__name__, str(error)]

syncs, runs = json.loads(sys.argv[2])
answers = [emitted({"data_version": new, "last_date": "2024-06-03"}, told) for new, told in syncs]
print(json.dumps({"asset": asset.name, "emitted": answers, "triggered": [triggered(*each) for each in runs]}))
"""
SYNCS = [("v1", []), ("v1", ["v1"]), ("v2", ["v1"]), ("v2", ["v1", "v2"]), ("v1", ["v1", "v2"])]
"""Version that a sync publishes, and the versions that were told before."""
RUNS = [
    ("daily_retraining", "plan_run", {"horzion": 5}),
    ("tune_models", "plan_search", {"trails": 5, "seed": 1}),
    ("daily_retraining", "plan_run", {"horizon": 5}),
]
"""DAG, its first task, and the configuration that it is triggered with."""


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """What the tasks do with `SYNCS` and `RUNS`, in one process of Airflow's."""
    return in_airflow(tmp_path_factory.mktemp("asked"), ASK, json.dumps([SYNCS, RUNS]))


def test_only_a_changed_vintage_starts_a_retraining(parsed, answered):
    """The asset that starts it is emitted for the first vintage, a new one, and an older one that is back in use; a
    sync or a task that is run again on the same bars skips it."""
    assert parsed["dags"]["daily_retraining"]["assets"] == [answered["asset"]] == ["market_data"]
    assert parsed["dags"]["sync_market_data"]["assets"] == []
    news = [[{"data_version": version, "last_date": "2024-06-03"}] for version in ("v1", "v2", "v1")]
    assert answered["emitted"] == [news[0], "skipped", news[1], "skipped", news[2]]


def test_a_dag_has_one_run_at_a_time(parsed):
    """Two would publish, train and deploy past each other; and days that were missed are not caught up one by one."""
    assert [dag["runs"] for dag in parsed["dags"].values()] == [[1, False]] * len(DAG_FILES)


def test_mapped_tasks_bear_the_names_of_what_they_are_about(parsed):
    """A model's, or a worker's number, in place of a number that says nothing."""
    built = {f"build_model.{task}": "{{ task.subject }}" for task in ("train_model", "evaluate_model", "log_run")}
    assert parsed["dags"]["daily_retraining"]["mapped"] == built
    assert parsed["dags"]["tune_models"]["mapped"] == {"run_worker": "worker {{ task.arguments.worker }}"}


def test_who_trains_waits_in_the_queue_of_the_machine_and_not_for_a_heavy_task(parsed):
    """All of them have a pool of their own, in which there is room for those that wait, and a limit that leaves it to
    the engine to end a training."""
    training = load_settings({}).training
    for dag in ("daily_retraining", "tune_models"):
        found = parsed["dags"][dag]
        stages = {task: stage for task, (stage, _) in found["tasks"].items()}
        trains = {task for task, stage in stages.items() if stage in ("training.train", "tuning.run_worker")}
        assert trains
        assert trains == {task for task, pool in found["pools"].items() if pool == TRAINING_POOL}
        for task in trains:
            assert found["limits"][task] > training.time_limit_s + 3600
    slots = pool_slots()
    assert slots[TRAINING_POOL] > slots[HEAVY_POOL] >= 1


def test_a_tasks_queue_has_the_name_of_its_pool(parsed):
    """Workers take trainings, evaluations and heavy tasks from queues of their own; what has no pool is light."""
    for found in parsed["dags"].values():
        for task, pool in found["pools"].items():
            assert found["queues"][task] == (pool if pool in POOLS else "default")


def test_evaluations_leave_workers_to_other_tasks(parsed):
    """All of them have a pool of their own, with a core for each; Airflow has a worker for every slot, and others."""
    for dag in ("daily_retraining", "tune_models"):
        found = parsed["dags"][dag]
        evaluates = {task for task, (stage, _) in found["tasks"].items() if stage == "evaluation.evaluate"}
        assert evaluates
        assert evaluates == {task for task, pool in found["pools"].items() if pool == EVALUATION_POOL}
    slots = pool_slots()
    assert slots[EVALUATION_POOL] == len(os.sched_getaffinity(0)) and slots.keys() == POOLS.keys()


def test_a_run_with_an_unknown_key_is_refused(answered):
    """Airflow takes any key; a misspelled one would leave the default in force. Known ones get as far as the stage."""
    wrong, also_wrong, right = answered["triggered"]
    assert wrong[0] == also_wrong[0] == "ConfigError"
    assert "'horzion': did you mean horizon?" in wrong[1]
    assert "'trails': did you mean trials" in also_wrong[1]
    assert "seed" not in also_wrong[1].partition("trigger")[0]
    assert right[0] == "StageError"
