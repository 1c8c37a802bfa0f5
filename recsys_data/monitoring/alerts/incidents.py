"""Alerts: what turned bad, and what is well again, each told once to each place.

Data flow: conditions of now + `State` of the last look -> episodes -> what each sink was not told yet -> sinks.
An episode begins when a subject turns bad, or worse, and ends when it is well; its id stays the same until then. What
a sink was told moves on only when it took it: delivery is at least once, and whoever must not act twice goes by `id`.
What came and went while a sink was away is not told. Dagster's side is `alerts.py` of `defs`; nothing here knows of it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Kind = Literal["freshness", "check", "run", "test"]
Severity = Literal["warning", "error"]
# A tick tells no more than this one by one, so that a bad night stays readable.
MOST = 20
# Of a job that failed once and was never run again nothing is kept after this.
RUN_FORGOTTEN_SECONDS = 7 * 24 * 3600.0


class Condition(msgspec.Struct, frozen=True):
    """How one subject is now.

    Attributes:
        subject: what it is about, e.g. `interactions` or `interactions:ledger_balances`.
        severity: None where it is well.
        message: what is wrong, for people.
        evidence: what shows it, e.g. the id of an evaluation; the episode's id is made of it.
        at: seconds since 1970 at which it turned so.
    """

    kind: Kind
    subject: str
    severity: Severity | None
    message: str
    evidence: str
    at: float

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.subject}"


class Episode(msgspec.Struct, frozen=True):
    """A subject that is bad; `id` is stable while it stays so."""

    id: str
    kind: Kind
    subject: str
    severity: Severity
    message: str
    at: float


class Alert(msgspec.Struct, frozen=True):
    """What a sink is told. The id of a recovery is that of its problem with `-recovered` after it."""

    id: str
    kind: Kind
    subject: str
    state: Literal["problem", "recovered"]
    severity: Severity
    message: str
    at: float


class State(msgspec.Struct, frozen=True):
    """What is known between two looks: it is the sensor's cursor.

    Attributes:
        episodes: what is bad, by kind and subject.
        told: by sink, the problems that it was told and whose end it was not told.
        runs_until: seconds since 1970 up to which runs were looked at.
    """

    episodes: dict[str, Episode] = {}
    told: dict[str, dict[str, Episode]] = {}
    runs_until: float | None = None


def observed(state: State, conditions: Sequence[Condition], now: float) -> State:
    """The state after a look. Subjects without a condition stay as they are; see `forget`."""
    episodes = {
        key: one for key, one in state.episodes.items() if one.kind != "run" or one.at > now - RUN_FORGOTTEN_SECONDS
    }
    for condition in conditions:
        known = episodes.get(condition.key)
        if condition.severity is None:
            episodes.pop(condition.key, None)
        elif known is None or (known.severity, condition.severity) == ("warning", "error"):
            episodes[condition.key] = _episode(condition, condition.severity)
    gone = state.episodes.keys() - episodes.keys() - {condition.key for condition in conditions}
    told = {sink: {key: one for key, one in known.items() if key not in gone} for sink, known in state.told.items()}
    return msgspec.structs.replace(state, episodes=episodes, told=told)


def forget(state: State, kind: Kind, subjects: Iterable[str]) -> State:
    """The state without subjects of a kind that are no longer there; of them nothing more is told."""
    keep = {f"{kind}:{subject}" for subject in subjects}

    def kept(episodes: dict[str, Episode]) -> dict[str, Episode]:
        return {key: one for key, one in episodes.items() if one.kind != kind or key in keep}

    return msgspec.structs.replace(
        state, episodes=kept(state.episodes), told={sink: kept(known) for sink, known in state.told.items()}
    )


def untold(state: State, sink: str, now: float) -> list[Alert]:
    """What a sink has not been told: problems first, errors before warnings, then recoveries."""
    told = state.told.get(sink, {})
    problems = [one for key, one in state.episodes.items() if key not in told or told[key].id != one.id]
    problems.sort(key=lambda one: (one.severity != "error", one.at, one.subject))
    recovered = [one for key, one in told.items() if key not in state.episodes]
    return [_alert(one, "problem", one.message, one.at) for one in problems] + [
        _alert(one, "recovered", f"{one.subject} is well again. It was: {one.message}", now) for one in recovered
    ]


def delivered(state: State, sink: str) -> State:
    """The state after a sink took everything that it had not been told."""
    return msgspec.structs.replace(state, told={**state.told, sink: dict(state.episodes)})


def summary(alerts: Sequence[Alert]) -> tuple[Sequence[Alert], str]:
    """What is told one by one, and a line about the rest ("" where nothing is left out)."""
    rest = alerts[MOST:]
    if not rest:
        return alerts, ""
    problems = sum(one.state == "problem" for one in rest)
    return alerts[:MOST], f"and {problems:,} more problems, {len(rest) - problems:,} more recoveries"


def _episode(condition: Condition, severity: Severity) -> Episode:
    text = f"{condition.key} {severity} {condition.evidence}"
    number = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return Episode(number, condition.kind, condition.subject, severity, condition.message, condition.at)


def _alert(one: Episode, state: Literal["problem", "recovered"], message: str, at: float) -> Alert:
    number = one.id if state == "problem" else f"{one.id}-recovered"
    return Alert(number, one.kind, one.subject, state, one.severity, message, at)
