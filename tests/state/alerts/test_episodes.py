"""What becomes of an episode, step by step."""

from datetime import UTC, datetime, timedelta

import pytest

from mlops_tasks.state.alerts.episodes import (
    QUIET_AFTER,
    Change,
    Episode,
    Key,
    Observation,
    Policy,
    Repeat,
    Severity,
    Standing,
    Step,
    acknowledged,
    fold,
    notified,
    observed,
    overdue,
    resolved,
)
from mlops_tasks.state.tables import AlertEvent

NOON = datetime(2024, 6, 3, 12, tzinfo=UTC)
KEY = Key("scores_late", "scores of 2024-06-03")
USUAL = Policy()


class Story:
    """Events of one key, each decided by the functions that the journal is given."""

    def __init__(self) -> None:
        self.events: list[AlertEvent] = []
        self.now = NOON

    @property
    def episode(self) -> Episode | None:
        return fold(self.events)

    def take(self, change: Change | None) -> str:
        """Write a step; its name, with `!` where people are told, or nothing."""
        if change is None:
            return ""
        last = self.episode
        event = AlertEvent(
            kind=KEY.kind,
            subject=KEY.subject,
            sequence=len(self.events) + 1,
            episode=1 if last is None else last.number + (last.state == "over"),
            step=change.step,
            severity=change.severity,
            message=change.message,
            by=change.by,
            tell=change.tell,
            token="t",
            at=self.now,
        )
        self.events.append(event)
        return change.step + "!" * change.tell

    def see(self, standing: Standing, lasting_min: float = 0, silenced: bool = False, after_min: float = 1) -> str:
        """Look once more, some minutes later."""
        self.now += timedelta(minutes=after_min)
        seen = Observation(KEY, standing, f"at {self.now:%H:%M}", timedelta(minutes=lasting_min))
        return self.take(observed(self.episode, seen, Severity.WARNING, silenced, self.now))

    def wait(self, minutes: float, policy: Policy = USUAL, watched: bool = True, silenced: bool = False) -> str:
        """Let time pass."""
        self.now += timedelta(minutes=minutes)
        return self.take(overdue(self.episode, policy, watched, silenced, self.now))


B, M, C, U = Standing.BREACHED, Standing.BETWEEN, Standing.CALM, Standing.UNKNOWN


@pytest.mark.parametrize(
    ("looks", "steps"),
    [
        ([B, B, C, B], ["opened!", "", "resolved!", "opened!"]),
        ([B, M, B, M, C], ["opened!", "", "", "", "resolved!"]),
        ([M, C, U], ["", "", ""]),
        ([B, U, U, C], ["opened!", "", "", "resolved!"]),
    ],
)
def test_a_breach_is_told_once_and_ends_where_it_is_calm(looks: list[Standing], steps: list[str]) -> None:
    """Between the limits nothing begins and nothing ends, and what is not known changes nothing."""
    story = Story()
    assert [story.see(look) for look in looks] == steps
    assert [event.episode for event in story.events] == sorted(event.episode for event in story.events)


def test_only_what_lasts_is_told() -> None:
    """A breach has to last without a break; what was over before is nobody's concern."""
    story = Story()
    assert [story.see(look, lasting_min=3) for look in (B, B, M, B, B, B, B)] == [
        *("noticed", "", "cleared"),
        *("noticed", "", "", "opened!"),
    ]
    assert story.episode is not None and (story.episode.number, story.episode.state) == (2, "open")


def test_what_was_silenced_is_told_when_the_silence_ends_and_it_is_still_wrong() -> None:
    """Once, and its end is told then; of an episode that nobody was told of no end is told."""
    story = Story()
    assert [story.see(B, silenced=True), story.wait(1, silenced=True), story.wait(1), story.wait(1)] == [
        *("opened", "", "reminded!", "")
    ]
    assert story.see(C) == "resolved!"
    assert [story.see(B, silenced=True), story.see(C)] == ["opened", "resolved"]


def test_what_nobody_acknowledges_escalates_once() -> None:
    """From its opening on; an acknowledgement in time, or a silence, keeps it where it is."""
    policy = Policy(Severity.CRITICAL, escalate_after=timedelta(minutes=60))
    story = Story()
    assert [story.see(B), story.wait(59, policy), story.wait(1, policy), story.wait(60, policy)] == [
        *("opened!", "", "escalated!", "")
    ]
    other = Story()
    assert other.see(B) == "opened!" and other.take(acknowledged(other.episode, "ann")) == "acknowledged"
    assert other.take(acknowledged(other.episode, "bob")) == ""
    assert other.wait(600, policy) == "" and other.episode is not None and other.episode.acknowledged_by == "ann"
    assert other.take(resolved(other.episode, "ann", silenced=False)) == "resolved!"
    assert other.take(resolved(other.episode, "ann", silenced=False)) == ""


def test_what_merely_happened_is_over_when_nothing_more_is_heard_of_it() -> None:
    """Quietly; what is watched stays until a look says otherwise."""
    story = Story()
    change = Change(Step.OPENED, Severity.WARNING, "the run failed")
    assert story.take(notified(story.episode, change, Repeat.DAY, False, story.now)) == "opened!"
    minutes = QUIET_AFTER / timedelta(minutes=1)
    assert story.wait(minutes - 1, watched=False) == ""
    assert story.wait(2, watched=True) == ""
    assert story.wait(0, watched=False) == "resolved"


@pytest.mark.parametrize(
    ("repeat", "steps"),
    [
        (Repeat.MESSAGE, ["opened!", "", "updated!", "", "updated!"]),
        (Repeat.DAY, ["opened!", "", "", "updated!", ""]),
    ],
)
def test_what_happens_again(repeat: Repeat, steps: list[str]) -> None:
    """By message: each once an episode. By day: once, whatever it says."""
    story, taken = Story(), []
    for message, hours in (("a", 0), ("a", 1), ("b", 1), ("a", 24), ("c", 1)):
        story.now += timedelta(hours=hours)
        change = Change(Step.OPENED, Severity.WARNING, message)
        taken.append(story.take(notified(story.episode, change, repeat, False, story.now)))
    assert taken == steps


def test_who_has_acknowledged_hears_of_news_and_not_of_repetitions() -> None:
    """A new message is told all the same, the next day's repetition is not."""
    for repeat, step in ((Repeat.MESSAGE, "updated!"), (Repeat.DAY, "updated")):
        story = Story()
        story.take(notified(None, Change(Step.OPENED, Severity.WARNING, "a"), repeat, False, story.now))
        story.take(acknowledged(story.episode, "ann"))
        story.now += timedelta(days=1)
        assert (
            story.take(notified(story.episode, Change(Step.OPENED, Severity.WARNING, "b"), repeat, False, story.now))
            == step
        )
