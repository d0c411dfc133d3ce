"""The history of models: which state each was in, who moved it, when and why. At most one is champion at any time.

Every transition of a registered model is a row, written in the transaction of the fact that it follows from: a gate
decision, a step of a rollout or of a deployment, an approval, a revocation. So the history and these records never
differ. How a model was trained is read from its training runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from itertools import zip_longest

from sqlalchemy import ColumnElement, and_, or_, select, text, update
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import acting
from mlops_tasks.errors import StoreError, TransitionError
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.index_revision import next_revision
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import IndexedVersion, ModelTransition, TrainingEvent, TrainingRun, now
from mlops_tasks.states import TRANSITIONS, ModelState, RunState

_OF_CHAMPIONS = or_(ModelTransition.after == ModelState.CHAMPION, ModelTransition.before == ModelState.CHAMPION)
"""The rows that begin or end a tenure."""


@dataclass(frozen=True)
class Model:
    """A model as the history knows it."""

    training_key: str
    """Empty: not known."""
    version: int | None
    """None: it is not registered."""

    def __str__(self) -> str:
        """As messages name it."""
        return f"training {self.training_key}" if self.version is None else f"version {self.version}"


@dataclass(frozen=True)
class Transition:
    """A model's way from one state to another."""

    at: datetime
    before: ModelState | None
    """None: the history begins here."""
    after: ModelState
    by: str
    reason: str


@dataclass(frozen=True)
class Tenure:
    """The time during which a version was champion."""

    version: int
    training_key: str
    since: datetime
    until: datetime | None
    """None: it still is."""

    def includes(self, moment: datetime) -> bool:
        """Whether it was champion at a time (aware): from `since` on, up to, but not including, `until`."""
        return self.since <= moment and (self.until is None or moment < self.until)


def record_transition(settings: Settings, model: Model, to: ModelState, reason: str, by: str = "") -> bool:
    """`move` in a transaction of its own."""
    with session(settings) as active:
        return move(active, model, to, reason, by)


def move(active: Session, model: Model, to: ModelState, reason: str, by: str = "") -> bool:
    """Record, as part of a transaction, that a model moves to a state other than champion.

    The champion stays champion, whatever is recorded about it: only a deployment takes it out of service (`succeed`).
    Call this last in the transaction: other writers of the history wait until it ends.

    Parameters
    ----------
    by
        Who; default: the DAG that this process works for, or the system's user.

    Returns
    -------
    False if it is in that state already, or is the champion; nothing is added then.

    Raises
    ------
    TransitionError
        The transition is not legal (`TRANSITIONS`), or to champion.
    """
    if to == ModelState.CHAMPION:
        raise TransitionError(f"{model} cannot become champion here: only a deployment makes a champion")
    last = _begin(active)
    before = state_within(active, model)
    if before in (to, ModelState.CHAMPION):
        return False
    if to != ModelState.CHALLENGER:
        last, before = _registered(active, last, model, before)
    _check(model, before, to)
    _add(active, last, _row(model, before, to, reason, by))
    return True


def challenge_again(active: Session, model: Model, leaves: ModelState, reason: str, by: str = "") -> bool:
    """`move` a model back to challenger, if it is in the state that it is to leave (rejected, or canary)."""
    last = _begin(active)
    if state_within(active, model) != leaves:
        return False
    _add(active, last, _row(model, leaves, ModelState.CHALLENGER, reason, by))
    return True


def succeed(
    active: Session, champion: Model | None, reason: str, by: str = "", leaves_as: ModelState = ModelState.RETIRED
) -> bool:
    """Record, as part of a transaction, who is champion from now on (None: nobody), in one row.

    `leaves_as` is the state of the one that is replaced. Otherwise as `move`.
    """
    last = _begin(active)
    former = _champion(active)
    if (None if former is None else former.version) == (None if champion is None else champion.version):
        return False
    if former is not None:
        _check(former, ModelState.CHAMPION, leaves_as)
    if champion is None:
        assert former is not None
        _add(active, last, _row(former, ModelState.CHAMPION, leaves_as, reason, by))
        return True
    last, before = _registered(active, last, champion, state_within(active, champion))
    _check(champion, before, ModelState.CHAMPION)
    row = _row(champion, before, ModelState.CHAMPION, reason, by)
    if former is not None:
        row.replaced_version, row.replaced_after = former.version, leaves_as.value
    _add(active, last, row)
    return True


def state_of(settings: Settings, model: Model) -> ModelState:
    """The present state; a registered model without a record is a challenger, any other one is trained.

    A training without a version is the version that was registered for it, if there is one.
    """
    with reading(settings) as active:
        return state_within(active, model)


def state_within(active: Session, model: Model) -> ModelState:
    """`state_of` as part of a transaction."""
    of_training = ModelTransition.training_key == model.training_key
    version = model.version
    if version is None:
        registered = _newest(active, and_(of_training, ModelTransition.model_version.is_not(None)))
        version = None if registered is None else registered.model_version
    if version is not None:
        row = _newest(active, _of_version(version))
        if row is not None:
            return ModelState(row.replaced_after if row.replaced_version == version else row.after)
    row = _newest(active, and_(of_training, ModelTransition.model_version.is_(None)))
    if row is not None:
        return ModelState(row.after)
    return ModelState.TRAINED if version is None else ModelState.CHALLENGER


def states_within(active: Session, models: Sequence[Model]) -> list[ModelState]:
    """`state_within` of many versions, in their order, by one query."""
    versions, keys = [each.version for each in models], [each.training_key for each in models]
    of_training = and_(ModelTransition.model_version.is_(None), ModelTransition.training_key.in_(keys))
    mine = or_(ModelTransition.model_version.in_(versions), ModelTransition.replaced_version.in_(versions), of_training)
    found: dict[int | str, str] = {}
    for row in active.scalars(select(ModelTransition).where(mine).order_by(ModelTransition.sequence)):
        found[row.training_key if row.model_version is None else row.model_version] = row.after
        if row.replaced_version is not None:
            found[row.replaced_version] = row.replaced_after
    before_registration = [found.get(each.training_key, ModelState.CHALLENGER) for each in models]
    return [
        ModelState(before if each.version is None else found.get(each.version, before))
        for each, before in zip(models, before_registration, strict=True)
    ]


def newest_sequence(settings: Settings) -> int:
    """Number of the newest transition; 0 before the first."""
    with reading(settings) as active:
        last = _last(active)
    return 0 if last is None else last.sequence


def states_moved_since(settings: Settings, sequence: int) -> dict[int, ModelState]:
    """Versions in transitions after a number, with the state that they are in now."""
    query = select(ModelTransition).where(ModelTransition.sequence > sequence).order_by(ModelTransition.sequence)
    found: dict[int, ModelState] = {}
    with reading(settings) as active:
        for row in active.scalars(query):
            if row.replaced_version is not None:
                found[row.replaced_version] = ModelState(row.replaced_after)
            if row.model_version is not None:
                found[row.model_version] = ModelState(row.after)
    return found


def transitions(settings: Settings) -> list[ModelTransition]:
    """The rows of all models, in order."""
    with reading(settings) as active:
        return list(active.scalars(select(ModelTransition).order_by(ModelTransition.sequence)))


def history_of(settings: Settings, version: int) -> list[Transition]:
    """All transitions of a version, oldest first, from its training runs on.

    Raises
    ------
    StoreError
        The history knows nothing of it.
    """
    with reading(settings) as active:
        of_version = _of_version(version)
        keys = active.scalars(select(ModelTransition.training_key).where(ModelTransition.model_version == version))
        key = next((each for each in keys if each), "")
        mine = or_(of_version, and_(ModelTransition.model_version.is_(None), ModelTransition.training_key == key))
        rows = active.scalars(select(ModelTransition).where(mine).order_by(ModelTransition.sequence)).all()
        runs = _runs(active, key) if key else []
    if not rows:
        raise StoreError(f"the history has no version {version}; `alphaops history` lists what it has")
    return [*runs, *(_transition(row, version) for row in rows)]


def knows(settings: Settings, version: int) -> bool:
    """Whether there is a transition of a version."""
    with reading(settings) as active:
        return _newest(active, _of_version(version)) is not None


def version_trained_as(settings: Settings, training_key: str) -> int | None:
    """The version that a training was registered as; None: it was not, or the history does not know it."""
    known = (ModelTransition.training_key == training_key, ModelTransition.model_version.is_not(None))
    query = select(ModelTransition.model_version).where(*known).order_by(ModelTransition.sequence.desc()).limit(1)
    with reading(settings) as active:
        return active.scalars(query).first()


def tenures(settings: Settings) -> list[Tenure]:
    """All tenures, oldest first."""
    query = select(ModelTransition).where(_OF_CHAMPIONS).order_by(ModelTransition.sequence)
    with reading(settings) as active:
        rows = list(active.scalars(query))
    ends: list[datetime | None] = [row.at for row in rows[1:]]
    return [
        Tenure(row.model_version, row.training_key, row.at, end)
        for row, end in zip_longest(rows, ends)
        if row.after == ModelState.CHAMPION and row.model_version is not None
    ]


def live_at(settings: Settings, moment: datetime) -> Tenure | None:
    """Who was champion at a time (aware); None: nobody."""
    return next((each for each in _lasting(tenures(settings)) if each.includes(moment)), None)


def live_on(settings: Settings, day: date) -> list[Tenure]:
    """Who was champion on a day (UTC) or a part of it, oldest first; each with its whole tenure.

    A tenure of no length, which ends at the very moment at which it began, is on no day, and interrupts none.
    """
    begin = datetime.combine(day, time(), UTC)
    return [
        each
        for each in _lasting(tenures(settings))
        if each.since.date() <= day and (each.until is None or each.until > begin)
    ]


def _lasting(found: Sequence[Tenure]) -> list[Tenure]:
    """Those that have a length; those of a version that follow each other at once are one."""
    lasting: list[Tenure] = []
    for each in found:
        if each.since == each.until:
            continue
        if lasting and (lasting[-1].version, lasting[-1].until) == (each.version, each.since):
            lasting[-1] = replace(lasting[-1], until=each.until)
        else:
            lasting.append(each)
    return lasting


def _begin(active: Session) -> ModelTransition | None:
    """Keep other writers out until the transaction ends; the newest row."""
    lock_table(active, ModelTransition.__tablename__)
    return _last(active)


def _last(active: Session) -> ModelTransition | None:
    return active.scalars(select(ModelTransition).order_by(ModelTransition.sequence.desc()).limit(1)).first()


def _registered(
    active: Session, last: ModelTransition | None, model: Model, before: ModelState
) -> tuple[ModelTransition | None, ModelState]:
    """Add the registration of a version whose process was killed between MLflow and the history."""
    if before != ModelState.VALIDATED or model.version is None:
        return last, before
    row = _row(model, before, ModelState.CHALLENGER, f"registered as version {model.version}", "")
    _add(active, last, row)
    return row, ModelState.CHALLENGER


def _add(active: Session, last: ModelTransition | None, row: ModelTransition) -> None:
    row.sequence = 1 if last is None else last.sequence + 1
    row.at = now() if last is None else max(now(), last.at)
    row.content_digest = content_digest(row)
    active.add(row)
    active.flush()
    if row.model_version is None:
        return
    revision = next_revision(active)
    for version, state in ((row.model_version, row.after), (row.replaced_version, row.replaced_after)):
        if version is not None:
            changed = {"state": state, "changed": revision}
            active.execute(update(IndexedVersion).where(IndexedVersion.version == version).values(changed))


def _row(model: Model, before: ModelState, to: ModelState, reason: str, by: str) -> ModelTransition:
    return ModelTransition(
        sequence=0,
        training_key=model.training_key,
        model_version=model.version,
        before=before.value,
        after=to.value,
        by=by or acting(),
        reason=reason,
    )


def _check(model: Model, before: ModelState, to: ModelState) -> None:
    if to not in TRANSITIONS[before]:
        legal = ", ".join(sorted(TRANSITIONS[before])) or "no other state"
        raise TransitionError(f"{model} is {before} and cannot become {to}; from there it can become {legal}")


def _champion(active: Session) -> Model | None:
    row = _newest(active, _OF_CHAMPIONS)
    if row is None or row.after != ModelState.CHAMPION:
        return None
    return Model(row.training_key, row.model_version)


def _newest(active: Session, which: ColumnElement[bool]) -> ModelTransition | None:
    query = select(ModelTransition).where(which).order_by(ModelTransition.sequence.desc()).limit(1)
    return active.scalars(query).first()


def _of_version(version: int) -> ColumnElement[bool]:
    return or_(ModelTransition.model_version == version, ModelTransition.replaced_version == version)


def _transition(row: ModelTransition, version: int) -> Transition:
    if row.replaced_version == version:
        after = ModelState(row.replaced_after)
        reason = f"version {row.model_version} took its place" + (f": {row.reason}" if row.reason else "")
        return Transition(row.at, ModelState.CHAMPION, after, row.by, reason)
    return Transition(row.at, ModelState(row.before), ModelState(row.after), row.by, row.reason)


def _runs(active: Session, training_key: str) -> Sequence[Transition]:
    """The beginning and the end of the run that trained it; of several, the first."""
    ended_in = TrainingEvent.payload["training_key"].as_string() == training_key
    query = (
        select(TrainingRun, TrainingEvent)
        .join(TrainingEvent, TrainingEvent.run_id == TrainingRun.run_id)
        .where(text("training_event.terminal"), TrainingEvent.kind == RunState.FINISHED, ended_in)
        .order_by(TrainingEvent.id)
        .limit(1)
    )
    found = active.execute(query).first()
    if found is None:
        return []
    run, end = found
    said = f"run {run.run_id}"
    return [
        Transition(run.at, None, ModelState.TRAINING, run.owner, said),
        Transition(end.at, ModelState.TRAINING, ModelState.TRAINED, run.owner, said),
    ]
