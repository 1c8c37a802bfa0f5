"""`recsys-data snapshot`: the batch side from the command line."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import Result

from recsys_data.settings import Settings

Run = Callable[..., Result]
Land = Callable[..., None]


@pytest.fixture
def land(settings: Settings) -> Land:
    def write(day: str, count: int, price: float = 1.5) -> None:
        folder = settings.data_dir / "landing" / "item_catalog" / day
        folder.mkdir(parents=True, exist_ok=True)
        prices = [price if n == 1 else 1.5 for n in range(count)]
        rows = [{"item_id": f"i{n}", "title": "T", "price": p, "currency": "EUR"} for n, p in enumerate(prices)]
        (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write


def test_all_days_that_landed_are_taken_once(run: Run, land: Land) -> None:
    for day, price in (("2026-01-01", 1.5), ("2026-01-02", 2)):
        land(day, 3, price)
    taken = run("snapshot", "take", "item_catalog").stdout
    assert "item_catalog_history: 2 days applied, 4 rows, 3 current." in taken
    assert [line.split()[:3] for line in taken.splitlines() if line.startswith("item_catalog ")] == [
        ["item_catalog", "2026-01-01", "3"],
        ["item_catalog", "2026-01-02", "3"],
    ]
    assert "Nothing to do" in run("snapshot", "take", "item_catalog").stdout
    found = run("sql", "SELECT price FROM item_catalog_as_of('2026-01-02') WHERE item_id = 'i1'", "--format", "csv")
    assert found.stdout.split() == ["price", "1.5000"]
    found = run("sql", "SELECT price FROM item_catalog_as_of('2026-01-03') WHERE item_id = 'i1'", "--format", "csv")
    assert found.stdout.split() == ["price", "2.0000"]


def test_a_held_snapshot_says_how_to_accept_it(run: Run, land: Land) -> None:
    land("2026-01-01", 10)
    land("2026-01-02", 4)
    error = run("snapshot", "take", "item_catalog", code=1)
    assert "sudden_loss: 6 of 10 rows of 2026-01-01 are gone" in error.stdout
    assert "recsys-data snapshot accept item_catalog 2026-01-02" in error.stderr
    assert "6 of 10 rows" in run("snapshot", "list", "item_catalog").stdout
    assert "published" in run("snapshot", "accept", "item_catalog", "2026-01-02").stdout
    assert "2026-01-02" in run("snapshot", "list", "item_catalog").stdout
    assert (
        "item_catalog 2026-01-02 is not on hold"
        in run("snapshot", "accept", "item_catalog", "2026-01-02", code=1).stderr
    )


def test_mistakes_are_explained(run: Run, land: Land) -> None:
    for arguments, expected in (
        (
            ("take", "interactions"),
            "Unknown snapshot dataset 'interactions'. Choose one of item_catalog",
        ),
        (("take", "item_catalog"), "The sources of item_catalog have no snapshot"),
        (("accept", "item_catalog", "2026-01-01"), "is not on hold; on hold: nothing"),
    ):
        assert expected in run("snapshot", *arguments, code=1).stderr
    land("2026-01-01", 1)
    assert "2026-01-01" in run("snapshot", "take", "item_catalog", "--day", "2026-01-09", code=1).stderr
    assert "does not match the format" in run("snapshot", "take", "item_catalog", "--day", "soon", code=2).stderr


def test_a_day_that_is_due_and_not_there_is_shown(run: Run, land: Land) -> None:
    for day in (1, 3):
        land(f"2026-01-0{day}", 2)
    run("snapshot", "take", "item_catalog")
    line = next(line for line in run("snapshot", "list").stdout.splitlines() if line.startswith("item_catalog"))
    days, first, last, missing, due, state = line.split()[1:7]
    assert (days, first, last, missing, state) == ("2", "2026-01-01", "2026-01-03", "1", "missing")
    assert abs(datetime.now(UTC).date() - datetime.fromisoformat(due).date()) <= timedelta(days=2)
    status = json.loads(run("status", "--json").stdout)
    assert status["datasets"]["item_catalog"]["freshness"] == "stale"


def test_a_history_that_was_never_made_is_empty_at_any_moment(run: Run) -> None:
    found = run("sql", "SELECT count(*) AS n FROM user_profiles_as_of('2026-01-01')", "--format", "csv")
    assert found.stdout.split() == ["n", "0"]
