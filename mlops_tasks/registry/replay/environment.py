"""What has changed since a version was trained, as far as a model may depend on it: code, libraries, hardware.

The engines have versions, which are raised with every change that can change a number. So other code of equal engine
versions should train the same model, and a replay finds out whether it does; other engines, libraries or hardware may
not, so a difference would prove nothing.
"""

from collections.abc import Iterator

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.sets import ENGINE_VERSION as FEATURES_VERSION
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.modeling.environment import CodeState, Environment
from mlops_tasks.modeling.identity import TrainingIdentity, certified_code, is_own, training_identity
from mlops_tasks.modeling.model_zoo.zoo import read_zoo
from mlops_tasks.registry.replay.record import RecordedTraining
from mlops_tasks.registry.replay.refused import ReplayRefusedError
from mlops_tasks.registry.replay.report import EnvironmentDifference
from mlops_tasks.states import ReplayRefusal
from mlops_tasks.training.fit import ENGINE_VERSION as TRAINING_VERSION


def environment_differences(
    settings: Settings, record: RecordedTraining, definition: FeatureSet
) -> tuple[EnvironmentDifference, ...]:
    """What differs; the number of threads does not count, since a replay takes the recorded one.

    Raises
    ------
    ReplayRefusedError
        The class that it was trained by is not found, or nobody lets it be trained any more.
    """
    check_allowed(settings, record)
    return tuple(_differences(settings, record, definition))


def check_environment(record: RecordedTraining, differences: tuple[EnvironmentDifference, ...]) -> None:
    """Refuse a replay that could prove nothing.

    Raises
    ------
    ReplayRefusedError
        Something decisive differs.
    """
    decisive = [str(each) for each in differences if each.decisive]
    if decisive:
        raise ReplayRefusedError(
            ReplayRefusal.OTHER_ENVIRONMENT,
            f"version {record.version} was trained in another environment, which may change a model "
            f"({'; '.join(decisive)}); to have that environment, check out {record.code_version or 'the code of then'} "
            "in a folder of its own and run `make env` there; or replay with --anyway, which says how far they differ",
        )


def check_allowed(settings: Settings, record: RecordedTraining) -> None:
    """Refuse a user's own class that the user's zoo no longer names: nobody could train it, so a replay may not."""
    path = record.config.class_path
    if path is None or not is_own(path):
        return
    named = {entry.class_path for entry in read_zoo(settings).entries.values()}
    if path not in named:
        raise ReplayRefusedError(
            ReplayRefusal.NOT_ALLOWED,
            f"version {record.version} was trained by {path}, which no entry of models.yaml names any more; add the "
            "entry again if it may be trained",
        )


def _differences(
    settings: Settings, record: RecordedTraining, definition: FeatureSet
) -> Iterator[EnvironmentDifference]:
    try:
        present = training_identity(record.config, settings.training.threads)
    except ConfigError as error:
        raise ReplayRefusedError(ReplayRefusal.NOT_ALLOWED, f"version {record.version}: {error}") from error
    before = record.identity
    yield from _package_differences(record, present)
    if before["device"] != present["device"]:
        yield EnvironmentDifference("device", before["device"], present["device"], decisive=True)
    signed = record.manifest.get("own_source", before["source"])
    if signed != present["source"]:
        what = f"code of {record.config.class_path}"
        yield EnvironmentDifference(what, str(signed), str(present["source"]), decisive=True)
    engine = record.plan.more["engine_version"]
    if engine != TRAINING_VERSION:
        yield EnvironmentDifference("training engine", str(engine), str(TRAINING_VERSION), decisive=True)
    yield from _code_differences(record, definition)


def _package_differences(record: RecordedTraining, present: TrainingIdentity) -> Iterator[EnvironmentDifference]:
    """By what was signed with the model, where it says so, and by what its training key follows from."""
    then, now = dict(record.identity["libraries"]), dict(present["libraries"])
    differing = {name for name in then.keys() | now.keys() if then.get(name) != now.get(name)}
    signed = record.manifest.get("environment")
    if signed is not None:
        before, here = Environment.from_json(signed), Environment.of_family(record.config.family)
        names = before.packages.keys() | here.packages.keys()
        differing |= (others := {name for name in names if before.packages.get(name) != here.packages.get(name)})
        then |= {name: before.packages[name] for name in others & before.packages.keys()}
        now |= {name: here.packages[name] for name in others & here.packages.keys()}
        if before.python != here.python:
            other_minor = before.python.split(".")[:2] != here.python.split(".")[:2]
            yield EnvironmentDifference("Python", before.python, here.python, decisive=other_minor)
        if before.lock != here.lock:
            yield EnvironmentDifference("lock", before.lock or "none", here.lock or "none", decisive=False)
    for name in sorted(differing):
        yield EnvironmentDifference(
            name, then.get(name, "not installed"), now.get(name, "not installed"), decisive=True
        )


def _code_differences(record: RecordedTraining, definition: FeatureSet) -> Iterator[EnvironmentDifference]:
    certified, present = record.certificate, CodeState.here().text
    if certified is None:
        if record.code_version != present:
            then = record.code_version or "not known"
            yield EnvironmentDifference("code, without a certificate that names it", then, present, decisive=True)
        return
    engine = certified.versions.get("features")
    if engine != FEATURES_VERSION:
        yield EnvironmentDifference("feature engine", str(engine), str(FEATURES_VERSION), decisive=True)
    elif certified.definition != definition.digest:
        what = f"definition of {definition.name}"
        yield EnvironmentDifference(what, certified.definition, definition.digest, decisive=True)
    if certified.code != certified_code():
        yield EnvironmentDifference("code", record.code_version or certified.code, present, decisive=False)
