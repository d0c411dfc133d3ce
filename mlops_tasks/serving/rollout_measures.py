"""What the log of predictions says of a rollout, for its rules."""

from dataclasses import replace

from mlops_tasks.columns import INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.serving.rollout_rules import Measures, p99
from mlops_tasks.state.predictions import (
    PredictionFilter,
    count_of_arm,
    latencies_of_arm,
    newest_scored,
    served_scores,
)
from mlops_tasks.state.rollouts import Rollout
from mlops_tasks.states import Arm


def measures_of(settings: Settings, rollout: Rollout) -> Measures:
    """What the log of predictions says of a rollout that has begun."""
    since = rollout.began_at or rollout.asked_at
    champion = rollout.champion or 0
    arms = ((rollout.version, Arm.CANARY), (champion, Arm.FALLBACK), (champion, Arm.CHAMPION))
    answers, failures, of_champion = (count_of_arm(settings, version, arm, since) for version, arm in arms)
    own, champions = (latencies_of_arm(settings, *arms[place], since) for place in (0, 2))
    found = Measures(answers, failures, of_champion, p99(own), p99(champions))
    newest = newest_scored(settings, rollout.version, since)
    if newest is None:
        return found
    day, data_version = newest
    table = served_scores(settings, PredictionFilter(date=day))
    table = table[table["data_version"] == data_version].drop_duplicates(["model_version", INSTRUMENT])
    scores = table.pivot(index=INSTRUMENT, columns="model_version", values=SCORE)
    scores = scores.reindex(columns=[champion, rollout.version]).set_axis(["champion", "candidate"], axis=1)
    return replace(found, scores=scores, day=str(day))
