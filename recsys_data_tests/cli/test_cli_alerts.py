"""`recsys-data alerts test` says whether alerts arrive, and never where."""

from collections.abc import Callable

import pytest
from click.testing import Result

from recsys_data_tests.support.webhook import SECRET, webhook

Run = Callable[..., Result]


def test_a_test_arrives_at_every_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Alerts are only logged. To receive them, set RECSYS_DATA_ALERT_URL" in run("alerts", "test").stdout
    with webhook() as hook:
        monkeypatch.setenv("RECSYS_DATA_ALERT_URL", hook.url)
        assert run("alerts", "test").stdout == "Sent to log.\nSent to webhook json.\n"
        assert hook.posted[0]["alerts"][0]["kind"] == "test"
        monkeypatch.setenv("RECSYS_DATA_ALERT_FORMAT", "slack")
        run("alerts", "test")
        assert "alerts arrive here" in hook.posted[1]["text"]
        hook.status = 404
        said = run("alerts", "test", code=1).output
        assert "it was answered 404" in said and SECRET not in said


def test_a_wrong_form_is_explained_without_the_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_ALERT_URL", f"hooks.example.org/{SECRET}")
    said = run("alerts", "test", code=1).output
    assert "RECSYS_DATA_ALERT_URL is a hidden value" in said and SECRET not in said
