"""Each notifier gets one alert when a subject turns bad and one when it recovers, whatever happens in between."""

import json
import logging
import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.errors import Transient, UserError
from recsys_data.monitoring.alerts import notifiers
from recsys_data.monitoring.alerts.incidents import (
    MOST,
    RUN_KEPT_SECONDS,
    Alert,
    Condition,
    Kind,
    Severity,
    State,
    delivered,
    observed,
    summary,
    undelivered,
    without_others,
)
from recsys_data.monitoring.alerts.notifiers import LogNotifier, WebhookNotifier, notifiers_of
from recsys_data.settings import Settings
from recsys_data_tests.support.webhook import SECRET, Webhook, webhook

NOW = 1_800_000_000.0


def condition(subject: str, severity: Severity | None, evidence: str = "1", kind: Kind = "check") -> Condition:
    return Condition(kind, subject, severity, f"{subject} failed", evidence, NOW)


def alert(number: int = 0, message: str = "a message") -> Alert:
    return Alert(str(number), "check", f"subject {number}", "problem", "error", message, NOW)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as found:
        yield found


def test_a_problem_is_reported_once_and_so_is_its_end() -> None:
    state = observed(State(), [condition("a", "error", "1"), condition("b", None)], NOW)
    (problem,) = undelivered(state, "log", NOW)
    assert (problem.subject, problem.state, problem.severity, problem.at) == ("a", "problem", "error", NOW)
    state = delivered(state, "log")
    state = observed(state, [condition("a", "error", "2")], NOW)
    assert undelivered(state, "log", NOW) == []
    state = observed(state, [condition("a", None)], NOW)
    (end,) = undelivered(state, "log", NOW + 9)
    assert (end.id, end.state, end.at) == (f"{problem.id}-recovered", "recovered", NOW + 9)
    assert undelivered(delivered(state, "log"), "log", NOW) == []


def test_what_was_not_delivered_keeps_its_id_though_it_is_found_again() -> None:
    state = observed(State(), [condition("a", "error", "1")], NOW)
    first = undelivered(state, "webhook", NOW)
    assert undelivered(observed(state, [condition("a", "error", "2")], NOW), "webhook", NOW) == first


def test_each_sink_is_reported_by_itself() -> None:
    state = delivered(observed(State(), [condition("a", "error")], NOW), "log")
    assert undelivered(state, "log", NOW) == []
    assert len(undelivered(state, "webhook", NOW)) == 1


def test_what_turns_worse_is_reported_again_and_what_turns_better_is_not() -> None:
    state = delivered(observed(State(), [condition("a", "warning")], NOW), "log")
    state = observed(state, [condition("a", "error", "2")], NOW)
    assert [one.severity for one in undelivered(state, "log", NOW)] == ["error"]
    state = observed(delivered(state, "log"), [condition("a", "warning", "3")], NOW)
    assert undelivered(state, "log", NOW) == []


def test_of_what_is_no_longer_there_nothing_more_is_reported() -> None:
    state = delivered(observed(State(), [condition("a", "error"), condition("b", "error")], NOW), "log")
    state = without_others(state, "check", ["b"])
    assert undelivered(state, "log", NOW) == []
    assert list(state.incidents) == ["check:b"]


def test_a_job_that_never_ran_again_is_forgotten_in_silence() -> None:
    state = delivered(observed(State(), [condition("a", "error", kind="run")], NOW), "log")
    assert observed(state, [], NOW + RUN_KEPT_SECONDS - 1) == state
    state = observed(state, [], NOW + RUN_KEPT_SECONDS + 1)
    assert (state.incidents, undelivered(state, "log", NOW)) == ({}, [])


def test_the_state_outlives_a_restart() -> None:
    state = delivered(observed(State(), [condition("a", "error")], NOW), "log")
    stored = msgspec.json.encode(state)
    assert msgspec.json.decode(stored, type=State) == state
    # The sensor's cursor in Dagster's storage has these names.
    assert list(json.loads(stored)) == ["episodes", "told", "runs_until"]


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["error", "warning", None])), st.booleans()),
        max_size=12,
    )
)
def test_a_sink_that_takes_the_last_look_knows_exactly_what_is_bad(looks) -> None:
    state, known = State(), {}
    for number, (found, takes) in enumerate([*looks, ({}, True)]):
        state = observed(state, [condition(name, how, str(number)) for name, how in found.items()], NOW)
        if takes:
            reported = undelivered(state, "webhook", NOW)
            assert len({one.id for one in reported}) == len(reported)
            for one in reported:
                known[one.subject] = one.state == "problem"
            state = delivered(state, "webhook")
    assert {name for name, bad in known.items() if bad} == {one.subject for one in state.incidents.values()}


def test_a_bad_night_is_summed_up() -> None:
    listed, rest = summary([alert(number) for number in range(MOST + 7)])
    assert (len(listed), rest) == (MOST, "and 7 more problems, 0 more recoveries")
    assert summary([alert()])[1] == ""


def test_the_generic_form_has_everything(hook: Webhook) -> None:
    WebhookNotifier(hook.url, "json").send([alert(message="line\nbreak " + "x" * 999)], "and 1 more problems")
    (body,) = hook.posted
    assert (body["version"], body["source"], body["rest"]) == (1, socket.gethostname(), "and 1 more problems")
    (one,) = body["alerts"]
    assert one["message"].startswith("line break xxx") and len(one["message"]) == 500
    assert (one["id"], one["kind"], one["state"], one["severity"]) == ("0", "check", "problem", "error")
    assert one["at"] == "2027-01-15T08:00:00.000Z"


def test_slack_is_sent_text_that_mentions_nobody(hook: Webhook) -> None:
    WebhookNotifier(hook.url, "slack").send([alert(message="<!channel> look & see")], "")
    (body,) = hook.posted
    assert list(body) == ["text"]
    assert ":red_circle: *subject 0* (check): &lt;!channel&gt; look &amp; see" in body["text"]


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
def test_a_refusal_is_reported_without_the_secret_url(hook: Webhook, status: int) -> None:
    hook.status = status
    with pytest.raises(Transient, match=f"it was answered {status}") as failure:
        WebhookNotifier(hook.url, "json").send([alert()], "")
    assert SECRET not in str(failure.value) and len(hook.posted) == 1


def test_a_dead_webhook_is_reported_without_the_secret_url() -> None:
    with webhook() as hook:
        url = hook.url
    with pytest.raises(Transient, match="Connection refused") as failure:
        WebhookNotifier(url, "json").send([alert()], "")
    assert SECRET not in str(failure.value)


def test_a_webhook_that_never_answers_is_given_up(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.hold = threading.Event()
    for limit, seconds in (("SECONDS", 0.1), ("SECONDS_IN_ALL", 0.2)):
        with monkeypatch.context() as patch:
            patch.setattr(notifiers, limit, seconds)
            with pytest.raises(Transient, match="no answer within 0.2 s|timed out|TimeoutError"):
                WebhookNotifier(hook.url, "json").send([alert()], "")


def test_the_log_is_reported_by_severity(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        LogNotifier().send([alert(1)], "and 3 more")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "a message"),
        ("WARNING", "and 3 more"),
    ]


def test_settings_choose_the_sinks_and_hide_the_url() -> None:
    assert [notifier.name for notifier in notifiers_of(Settings())] == ["log"]
    settings = Settings.from_env({"RECSYS_DATA_ALERT_URL": f"https://hooks.example.org/{SECRET}"})
    assert [notifier.name for notifier in notifiers_of(settings)] == ["log", "webhook json"]
    assert SECRET not in repr(settings) and "alert_url=<1 hidden>" in repr(settings)
    for wrong in (f"ftp://x/{SECRET}", f"file:///{SECRET}", SECRET):
        with pytest.raises(UserError, match="RECSYS_DATA_ALERT_URL is a hidden value") as failure:
            Settings.from_env({"RECSYS_DATA_ALERT_URL": wrong})
        assert SECRET not in str(failure.value)
    assert json.loads(json.dumps(repr(notifiers_of(settings)[1]))).find(SECRET) == -1
