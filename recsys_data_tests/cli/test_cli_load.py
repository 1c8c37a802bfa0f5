import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.settings import Settings
from recsys_data.sources.datasets import IMPORTERS

Run = Callable[..., Result]
Status = Callable[[], dict[str, Any]]


@pytest.fixture
def movielens(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.5,1112486027\n1,3,5.5e,1112486028\n")
    with gzip.open(folder / "tags.csv.gz", "wt") as file:
        file.write("userId,movieId,tag,timestamp\n1,2,dark,1112486029\n")
    return folder


def test_a_data_set_gets_in(run: Run, status: Status, movielens: Path) -> None:
    output = run("load", "movielens", str(movielens)).stdout
    assert "Appended 3 lines" in output
    assert "recsys-data ingest --until-empty" in output
    run("ingest", "--until-empty")
    found = status()
    assert (found["ledger"]["accepted"], found["dead_letters_by_reason"]) == (2, {"wrong_type": 1})
    # The time of receipt was stamped: it is what the latency is measured from.
    assert found["latency"]["p50_s"] < 600


def test_users_and_items_land_and_what_to_do_next_is_said(run: Run, settings: Settings, movielens: Path) -> None:
    (movielens / "movies.csv").write_text('movieId,title,genres\n2,"Piano, The (1993)",Drama|Romance\n')
    output = run("load", "movielens", str(movielens)).stdout
    file = settings.data_dir / "landing" / "item_catalog" / "2005-04-02" / "movielens.jsonl"
    assert json.loads(file.read_text())["title"] == "Piano, The"
    assert f"Landed 1 rows of item_catalog for 1 day in {settings.data_dir / 'landing'}." in output
    assert (
        "Next: dagster asset materialize --select item_catalog,item_catalog_history "
        "--partition-range 2005-04-02...2005-04-02 -m recsys_data.definitions"
    ) in output


def test_items_and_customers_land_for_every_day_of_a_shop(run: Run, settings: Settings, tmp_path: Path) -> None:
    lines = ["1,A,MUG,1,12/1/2010 8:26,2.10,17850.0,Norway", "2,B,CUP,1,12/3/2010 9:00,2.50,17851.0,France"]
    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    (tmp_path / "retail.csv").write_text("\n".join([header, *lines, ""]))
    output = run("load", "online-retail", str(tmp_path / "retail.csv")).stdout
    assert "Landed 6 rows of item_catalog and user_profiles for 2 days" in output
    assert "--select item_catalog,item_catalog_history,user_profiles,user_profiles_history" in output
    assert "--partition-range 2010-12-01...2010-12-03" in output
    for dataset in ("item_catalog", "user_profiles"):
        folder = settings.data_dir / "landing" / dataset
        assert sorted(path.name for path in folder.iterdir()) == ["2010-12-01", "2010-12-03"]


def test_loading_it_again_changes_nothing(run: Run, status: Status, movielens: Path) -> None:
    for _ in range(2):
        run("load", "movielens", str(movielens))
        run("ingest", "--until-empty")
    ledger = status()["ledger"]
    assert (ledger["accepted"], ledger["duplicates"], ledger["balanced"]) == (2, 2, True)


def test_every_importer_is_a_command(run: Run) -> None:
    for name, importer in IMPORTERS.items():
        assert importer.help in " ".join(run("load", name, "--help").stdout.split())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "holds no lines"),
        (lambda path: path.write_bytes(gzip.compress(b"{}\n" * 999)[:-9]), "gzip"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(
    run: Run, tmp_path: Path, make: Callable[[Path], Any], said: str
) -> None:
    path = tmp_path / "events.ndjson"
    make(path)
    assert said in run("load", "events", str(path), code=1).stderr


def test_an_unknown_data_set_is_a_usage_error(run: Run) -> None:
    error = run("load", "netflix", "somewhere", code=2).stderr
    assert "Expected one of movielens, online-retail, google-retail, open-bandit, recbole, events." in error


def test_what_was_appended_before_a_failure_is_reported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"{}\n")

    def full(self: EmbeddedLog, lines: object) -> None:
        raise Transient("the disk is full")

    monkeypatch.setattr(EmbeddedLog, "append", full)
    error = run("load", "events", str(path), code=1).stderr
    assert "Stopped after 0 of 1 lines" in error
    assert "Error: the disk is full" in error
