import json
from collections.abc import Callable

import pytest
from click.testing import Result

from recsys_data.settings import Settings

Run = Callable[..., Result]


def test_a_deployment_without_problems_ends_with_0(run: Run) -> None:
    run("simulate", "--events", "50")
    run("ingest", "--until-empty")
    text = run("doctor").stdout
    assert "balanced: each of 50 lines read has one outcome" in text
    assert "Problems: 0, warnings: 4." in text
    assert "recsys-data snapshot take item_catalog" in text


def test_a_problem_ends_with_1_and_json_says_which(run: Run, settings: Settings) -> None:
    run("simulate", "--events", "50")
    run("ingest", "--until-empty")
    next((settings.lake_dir / "recsys" / "interactions").rglob("*.parquet")).unlink()
    found = json.loads(run("doctor", "--json", code=1).stdout)
    # Another check may want to read the same file.
    assert "table interactions" in [one["check"] for one in found if one["state"] == "problem"]
    assert {"check", "state", "found", "advice"} == set(found[0])


def test_a_setting_that_is_wrong_is_a_finding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_IDLE_SECONDS", "soon")
    assert "RECSYS_DATA_IDLE_SECONDS" in run("doctor", code=1).stdout
