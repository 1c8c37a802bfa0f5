"""Incidents (stale datasets, failed checks and jobs), and the alerts about them that are not delivered yet.

Data flow: current conditions + `State` of the last evaluation -> incidents -> alerts for each notifier -> delivery.
An incident begins when a subject turns bad, or worse, and ends when it recovers; its id stays the same until then.
Delivery is at least once: a notifier's state changes only after it accepted the alerts, and `id` identifies repeated
ones. An incident that began and ended while a notifier was unavailable is not reported to it. Dagster's side is
`alerts.py` of `defs`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Kind = Literal["freshness", "check", "run", "test"]
Severity = Literal["warning", "error"]
# More alerts than this are summarized, so that a bad night stays readable.
MOST = 20
# The incident of a failed job that is never run again is dropped after this.
RUN_KEPT_SECONDS = 7 * 24 * 3600.0


class Condition(msgspec.Struct, frozen=True):
    """The condition of one subject now.

    Attributes:
        subject: what it is about, e.g. `interactions` or `interactions:ledger_balances`.
        severity: None if it is well.
        message: what is wrong, for people.
        evidence: e.g. the id of an evaluation; the incident's id is derived from it.
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


class Incident(msgspec.Struct, frozen=True):
    """A bad subject; `id` is stable until it recovers or gets worse."""

    id: str
    kind: Kind
    subject: str
    severity: Severity
    message: str
    at: float


class Alert(msgspec.Struct, frozen=True):
    """What is sent. The id of a recovery is that of its problem followed by `-recovered`."""

    id: str
    kind: Kind
    subject: str
    state: Literal["problem", "recovered"]
    severity: Severity
    message: str
    at: float


class State(msgspec.Struct, frozen=True, rename={"incidents": "episodes", "notified": "told"}):
    """What is kept between two evaluations, as the sensor's cursor.

    Attributes:
        incidents: by kind and subject.
        notified: by notifier, the incidents that were reported to it and whose recovery was not.
        runs_until: seconds since 1970 up to which runs were evaluated.
    """

    incidents: dict[str, Incident] = {}
    notified: dict[str, dict[str, Incident]] = {}
    runs_until: float | None = None


def observed(state: State, conditions: Sequence[Condition], now: float) -> State:
    """The state after an evaluation. Subjects without a condition stay as they are; see `without_others`."""
    incidents = {
        key: one for key, one in state.incidents.items() if one.kind != "run" or one.at > now - RUN_KEPT_SECONDS
    }
    for condition in conditions:
        known = incidents.get(condition.key)
        if condition.severity is None:
            incidents.pop(condition.key, None)
        elif known is None or (known.severity, condition.severity) == ("warning", "error"):
            incidents[condition.key] = _incident(condition, condition.severity)
    gone = state.incidents.keys() - incidents.keys() - {condition.key for condition in conditions}
    notified = {
        notifier: {key: one for key, one in known.items() if key not in gone}
        for notifier, known in state.notified.items()
    }
    return msgspec.structs.replace(state, incidents=incidents, notified=notified)


def without_others(state: State, kind: Kind, subjects: Iterable[str]) -> State:
    """The state without subjects of a kind that no longer exist; nothing more is reported about them."""
    keep = {f"{kind}:{subject}" for subject in subjects}

    def kept(incidents: dict[str, Incident]) -> dict[str, Incident]:
        return {key: one for key, one in incidents.items() if one.kind != kind or key in keep}

    return msgspec.structs.replace(
        state,
        incidents=kept(state.incidents),
        notified={notifier: kept(known) for notifier, known in state.notified.items()},
    )


def undelivered(state: State, notifier: str, now: float) -> list[Alert]:
    """Alerts that a notifier did not get: problems first, errors before warnings, then recoveries."""
    notified = state.notified.get(notifier, {})
    problems = [one for key, one in state.incidents.items() if key not in notified or notified[key].id != one.id]
    problems.sort(key=lambda one: (one.severity != "error", one.at, one.subject))
    recovered = [one for key, one in notified.items() if key not in state.incidents]
    return [_alert(one, "problem", one.message, one.at) for one in problems] + [
        _alert(one, "recovered", f"{one.subject} is well again. It was: {one.message}", now) for one in recovered
    ]


def delivered(state: State, notifier: str) -> State:
    """The state after a notifier accepted all its undelivered alerts."""
    return msgspec.structs.replace(state, notified={**state.notified, notifier: dict(state.incidents)})


def summary(alerts: Sequence[Alert]) -> tuple[Sequence[Alert], str]:
    """The alerts that are sent one by one, and a line about the rest ("" if there is none)."""
    rest = alerts[MOST:]
    if not rest:
        return alerts, ""
    problems = sum(one.state == "problem" for one in rest)
    return alerts[:MOST], f"and {problems:,} more problems, {len(rest) - problems:,} more recoveries"


def _incident(condition: Condition, severity: Severity) -> Incident:
    text = f"{condition.key} {severity} {condition.evidence}"
    number = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return Incident(number, condition.kind, condition.subject, severity, condition.message, condition.at)


def _alert(one: Incident, state: Literal["problem", "recovered"], message: str, at: float) -> Alert:
    number = one.id if state == "problem" else f"{one.id}-recovered"
    return Alert(number, one.kind, one.subject, state, one.severity, message, at)
