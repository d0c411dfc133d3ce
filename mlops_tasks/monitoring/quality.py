"""Takes the looks that are due: rank ICs of a candidate or a new champion against its rival's, on mature days.

Both are scored by their artefacts, on the same rows of the same days, which lie after all that either has learned from
and after the rollout's begin, or the promotion. A day is mature when its label exists. What a look has found is
recorded; `serving/` acts on it, by rejecting the candidate or rolling the champion back.
"""

import logging
from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import MlopsError
from mlops_tasks.evaluation.worse import LookPlan, judge
from mlops_tasks.features.labels import label_dates
from mlops_tasks.monitoring.contest import contest_of, paired_rank_ic
from mlops_tasks.monitoring.performance import last_date
from mlops_tasks.registry.approvals import candidate_permit, load_recorded
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.serving.probation import probation_of
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import publication_at
from mlops_tasks.state.quality_looks import quality_looks, record_quality_look
from mlops_tasks.state.rollouts import rollout_at_work
from mlops_tasks.state.tables import QualityLook

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contender:
    """A model that is measured against another one."""

    subject: str
    version: int
    rival: int
    since: datetime
    is_candidate: bool

    @property
    def name(self) -> str:
        """As messages say it."""
        return f"version {self.version}, {'a candidate' if self.is_candidate else 'the champion'}"

    def model(self, settings: Settings) -> LoadedModel:
        """Loaded, to be measured. Errors as `candidate_permit` and `load_recorded`."""
        if self.is_candidate:
            return candidate_permit(settings, self.version).load(settings)
        return load_recorded(settings, self.version)


def contenders(settings: Settings) -> list[Contender]:
    """The candidate of the rollout at work, and the champion that has replaced one that may serve again."""
    rollout, probation = rollout_at_work(settings), probation_of(settings, recorded_champion(settings))
    found = []
    if rollout is not None and rollout.champion is not None and rollout.began_at is not None:
        began = rollout.began_at
        found.append(Contender(rollout.rollout_id, rollout.version, rollout.champion, began, is_candidate=True))
    if probation is not None:
        about = (probation.subject, probation.version, probation.replaced, probation.began_at)
        found.append(Contender(*about, is_candidate=False))
    return found


def take_looks(settings: Settings, vintage: Vintage) -> list[str]:
    """Take and record the looks that are due by the labels of a vintage; returns what they have found, in words.

    A contender whose models cannot be scored gets no look, and is named with the reason; each call tries again.
    """
    plan, told = LookPlan.of(settings.deployment), []
    for contender in contenders(settings):
        try:
            row = _look(settings, contender, vintage, plan)
        except MlopsError as error:
            log.warning("%s is not judged: %s", contender.name, error)
            told.append(f"{contender.name}, is not judged: {error}")
            continue
        if row is not None and record_quality_look(settings, row):
            log.log(logging.WARNING if row.worse else logging.INFO, "%s: %s", contender.name, row.said)
            told.append(f"{contender.name}{', is worse' if row.worse else ''}: {row.said}")
    return told


def _look(settings: Settings, contender: Contender, vintage: Vintage, plan: LookPlan) -> QualityLook | None:
    """The look that is due; None: none is, or it was taken."""
    days = vintage.calendar()
    days = days[days > pd.Timestamp(newest_day_at(settings, contender.since))]
    taken = quality_looks(settings, contender.subject)
    done = taken[-1].number if taken else 0
    if plan.due(len(days)) <= done or any(row.worse for row in taken):  # no model is loaded for that
        return None
    model, rival = contender.model(settings), load_recorded(settings, contender.rival)
    mature = days[label_dates(days, int(model.artefact.manifest["horizon"]))["known"].notna()]
    number = plan.due(len(mature))
    if number <= done:
        return None
    last = mature[: plan.days[-1]][-1]
    contest = contest_of(settings, rival, model, vintage.data_version)
    daily = paired_rank_ic(settings, contest, after=days[0] - pd.Timedelta(days=1))
    found = judge(daily["difference"][daily.index <= last], plan, number)
    return QualityLook(
        subject=contender.subject,
        number=number,
        model_version=contender.version,
        rival_version=contender.rival,
        data_version=vintage.data_version,
        worse=found.worse,
        said=found.said(f"version {contender.rival}"),
        result=found.to_json(),
    )


def newest_day_at(settings: Settings, moment: datetime) -> date:
    """Last day of the vintage that was in use at a moment: nobody knew more then. The moment's own date where that is
    not known."""
    published = publication_at(settings, moment)
    known = None if published is None else last_date(settings, published.data_version)
    return moment.date() if known is None else known.date()
