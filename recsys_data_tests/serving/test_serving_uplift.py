"""Variants compared with each other."""

import json
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.errors import UserError
from recsys_data.serving.uplift import uplifts_of
from recsys_data_tests.serving.conftest import declare


def log_of(visitors):
    """A session with what visitors of a scenario's variants were shown, and how many of it they clicked."""
    rows = []
    for place, (variant, shown, clicked) in enumerate(visitors):
        for number in range(shown):
            row = {"recommendation_id": f"r{place}", "item_id": f"i{number}", "list_id": "home", "variant": variant}
            row |= {"user_id": f"u{place}", "model": "m", "event_ts": datetime(2026, 1, 5, tzinfo=UTC)}
            row |= {"anonymous_id": None, "session_id": None, "value": None}
            rows += [row | {"type": kind} for kind in ("impression", "click")[: 1 + (number < clicked)]]
    connection = duckdb.connect()
    connection.register("interactions", pa.Table.from_pylist(rows))
    return connection


def test_variants_are_compared_with_the_baseline_of_their_scenario():
    visitors = [("control", 10, 1), ("control", 10, 3), ("new", 10, 4), ("new", 10, 4), ("new", 20, 8)]
    clicks, purchases = uplifts_of(log_of(visitors))
    assert (clicks.scenario, clicks.variant, clicks.baseline, clicks.measure) == ("home", "new", "control", "clicked")
    assert clicks.rate.value == pytest.approx(0.4) and clicks.baseline_rate.value == pytest.approx(0.2)
    assert clicks.difference.value == pytest.approx(0.2) and clicks.relative.value == pytest.approx(1.0)
    # Newcombe's: the ends lie as far off as those of both shares together.
    down = (clicks.rate.value - clicks.rate.low) ** 2 + (clicks.baseline_rate.high - clicks.baseline_rate.value) ** 2
    assert clicks.difference.low == pytest.approx(0.2 - down**0.5)
    assert (purchases.measure, purchases.difference.value, purchases.relative) == ("bought", 0, None)
    (back, _) = uplifts_of(log_of(visitors), baseline="new")
    assert (back.variant, back.difference.value) == ("control", pytest.approx(-0.2))


def test_visitors_who_are_shown_much_make_intervals_wider():
    visitors = [("control", 1, 1)] * 100 + [("control", 1, 0)] * 300 + [("new", 1, 0)] * 400
    same = uplifts_of(log_of(visitors))[0]
    few = uplifts_of(log_of([("control", 10, 10)] * 10 + [("control", 10, 0)] * 30 + [("new", 10, 0)] * 40))[0]
    assert same.difference.value == few.difference.value
    assert few.difference.high - few.difference.low > 1.5 * (same.difference.high - same.difference.low)


def test_an_unknown_baseline_is_named():
    with pytest.raises(UserError, match=r"'x'\. There are: control"):
        uplifts_of(log_of([("control", 2, 0)]), baseline="x")


def test_the_command_compares_variants(shop, serve, monkeypatch):
    declare(shop, name="home", variants={"control": 0.5, "new": 0.5})
    client = serve(shop)
    for number in range(20):
        client.recommend(user_id=f"u{number}", n=2)
    client.stop()
    shop.consume()
    monkeypatch.setenv("RECSYS_DATA_DIR", shop.settings.dir)
    result = CliRunner().invoke(cli, ["recommendations", "--uplift"])
    assert result.exit_code == 0, result.output
    assert "control" in result.stdout and "0.00 points (" in result.stdout
    clicks, _ = json.loads(CliRunner().invoke(cli, ["recommendations", "--uplift", "--json"]).stdout)
    assert (clicks["variant"], clicks["baseline"], clicks["difference"]["value"]) == ("new", "control", 0)
    wrong = CliRunner().invoke(cli, ["recommendations", "--uplift", "--baseline", "none"])
    assert wrong.exit_code and "There are: control, new" in wrong.output
