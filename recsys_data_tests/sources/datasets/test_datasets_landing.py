"""What data sets tell about users and items, as landing folders of full states."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_data.errors import UserError
from recsys_data.sources.datasets import IMPORTERS
from recsys_data.sources.datasets.landing import land
from recsys_data.sources.files.day_folders import whole_file

RETAIL = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
Tree = dict[str, bytes]


def files_below(folder: Path) -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def landed(tmp_path: Path) -> Callable[[str, Path], Tree]:
    """Land the states of a data set; every file below the landing folder, hidden ones too."""

    def run(name: str, path: Path) -> Tree:
        found = IMPORTERS[name].read(path)
        for _ in found:
            pass
        for state in found.states:
            land(tmp_path / "landing", state)
        return files_below(tmp_path / "landing")

    return run


def rows(content: bytes) -> list[dict[str, Any]]:
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def movielens(folder: Path, movies: str = "", links: str = "", ratings: str = "1,2,4.5,1112486027\n") -> Path:
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,2,dark,1112300000\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies)
    (folder / "links.csv").write_text("movieId,imdbId,tmdbId\n" + links)
    return folder


def test_all_movies_land_on_the_day_of_the_newest_rating_or_tag(public_data, landed):
    source = public_data / "movielens-latest-small"
    found = landed("movielens", source)
    assert list(found) == ["item_catalog/2018-09-24/movielens.jsonl"]
    movies = {row["item_id"]: row for row in rows(next(iter(found.values())))}
    with (source / "movies.csv").open(encoding="utf-8", newline="") as movies_file:
        expected = list(csv.DictReader(movies_file))
    with (source / "links.csv").open(encoding="utf-8", newline="") as links_file:
        links = {row["movieId"]: row for row in csv.DictReader(links_file)}
    assert len(movies) == len(expected) == 9742
    undated = 0
    for row in expected:
        movie, link = movies[row["movieId"]], links[row["movieId"]]
        external = {"imdb": link["imdbId"], "tmdb": link["tmdbId"]}
        genres = [] if row["genres"] == "(no genres listed)" else row["genres"].split("|")
        year = movie.get("release_year")
        undated += year is None
        # One series is dated from one year to another.
        title = movie["title"] + (f" ({year})" if year else "")
        assert " ".join(row["title"].replace("–2007)", ")").split()) == " ".join(title.split())
        assert movie["genres"] == genres
        assert movie["external_ids"] == {name: text for name, text in external.items() if text}
        assert movie["item_type"] == "movie"
    assert undated == 12


@pytest.mark.parametrize(
    ("cells", "title", "year"),
    [
        ('"American President, The (1995)"', "American President, The", 1995),
        ('"Say ""Yes"" (Dites oui) (2001) "', 'Say "Yes" (Dites oui)', 2001),
        ("1984 (1984)", "1984", 1984),
        ("Run (1999-)", "Run", 1999),
        ("Seven (a.k.a. Se7en)", "Seven (a.k.a. Se7en)", None),
        ("(1998)", "(1998)", None),
    ],
)
def test_the_year_leaves_the_title(tmp_path, landed, cells, title, year):
    path = movielens(tmp_path / "ml", f"7,{cells},Drama\n")
    movie = rows(landed("movielens", path)["item_catalog/2005-04-02/movielens.jsonl"])[0]
    assert (movie["title"], movie.get("release_year")) == (title, year)


def test_movies_with_parts_missing_are_kept_with_the_rest(tmp_path, landed):
    path = movielens(tmp_path / "ml", "7,,\n8,Up (2009),(no genres listed)\nodd\n", "8,0114709,\n,1\n")
    found = rows(landed("movielens", path)["item_catalog/2005-04-02/movielens.jsonl"])
    assert found == [
        {"item_id": "7", "item_type": "movie", "genres": []},
        {
            "item_id": "8",
            "item_type": "movie",
            "title": "Up",
            "release_year": 2009,
            "genres": [],
            "external_ids": {"imdb": "0114709"},
        },
        # Without an id, for ingestion to reject.
        {"attributes": {"file": "movies.csv", "row": "4", "text": "odd"}},
        {"attributes": {"file": "links.csv", "row": "3", "text": ",1"}},
    ]


def test_a_rating_of_a_far_future_does_not_move_the_day(tmp_path, landed):
    path = movielens(tmp_path / "ml", "7,Up (2009),Drama\n", ratings="1,2,4.5,99999999999\n1,2,4.5,soon\n")
    assert list(landed("movielens", path)) == ["item_catalog/2005-03-31/movielens.jsonl"]


def test_a_folder_of_ratings_and_tags_alone_lands_nothing(tmp_path, landed):
    path = movielens(tmp_path / "ml")
    (path / "movies.csv").unlink()
    assert landed("movielens", path) == {}


def test_a_damaged_file_of_movies_is_refused_before_anything_is_loaded(tmp_path):
    path = movielens(tmp_path / "ml")
    (path / "movies.csv").write_text("id,name\n")
    with pytest.raises(UserError, match="movies.csv has the columns id, name"):
        IMPORTERS["movielens"].read(path)


def test_every_item_and_customer_has_the_state_of_every_day(public_data, landed):
    """Against a plain pass over the files that keeps the last of each."""
    found = landed("online-retail", public_data / "online-retail")
    items: dict[str, dict[str, str]] = {}
    customers: dict[str, str] = {}
    files = sorted((public_data / "online-retail" / "by-day").glob("*.csv.gz"))
    expected = set()
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                item = items.setdefault(row["StockCode"], {})
                if not row["InvoiceNo"].startswith("C") and float(row["UnitPrice"]) > 0:
                    item["price"] = row["UnitPrice"]
                if row["Description"].strip():
                    item["description"] = row["Description"]
                if row["CustomerID"]:
                    customers[row["CustomerID"].removesuffix(".0")] = row["Country"]
        day = path.name.split(".")[0]
        expected |= {f"item_catalog/{day}/online-retail.jsonl", f"user_profiles/{day}/online-retail.jsonl"}
        catalog = rows(found[f"item_catalog/{day}/online-retail.jsonl"])
        state = {row["item_id"]: row for row in catalog}
        assert len(state) == len(catalog) and state.keys() == items.keys()
        for item_id, item in items.items():
            row = state[item_id]
            assert (row.get("price"), row.get("description")) == (item.get("price"), item.get("description"))
            assert row.get("title") == (item.get("description", "").strip() or None)
            assert (row["item_type"], row["currency"]) == ("product", "GBP")
        profiles = rows(found[f"user_profiles/{day}/online-retail.jsonl"])
        assert {row["user_id"]: row["country"] for row in profiles} == customers
        assert len(profiles) == len(customers)
    assert found.keys() == expected
    assert len(files) == 44 and len(items) > 3000 and len(customers) > 1300


def test_item_ids_and_user_ids_are_those_of_the_events(public_data, landed, events):
    path = sorted((public_data / "online-retail" / "by-day").glob("*.csv.gz"))[0]
    found = landed("online-retail", path)
    happened = events("online-retail", path)
    catalog = rows(found["item_catalog/2010-12-01/online-retail.jsonl"])
    profiles = rows(found["user_profiles/2010-12-01/online-retail.jsonl"])
    assert {row["item_id"] for row in catalog} == {event["item_id"] for event in happened}
    assert {row["user_id"] for row in profiles} == {event["user_id"] for event in happened if "user_id" in event}


def test_one_file_of_several_days_in_any_order_has_the_states_of_the_days_that_occur(tmp_path, landed):
    lines = [
        "2,A,BEFORE,1,12/3/2010 9:00,2.50,1.0,France",
        "1,A,OLD NAME,1,12/1/2010 8:26,2.10,1,Norway",
        "1,B,damaged,1,12/1/2010 8:27,0.0,,Norway",
        "C3,A,OLD NAME,-1,12/3/2010 9:30,9.99,1,Norway",
        "4,A,,1,12/3/2010 9:31,-1.5,1,",
        "5,C,LATE,1,soon,1.0,2,Spain",
    ]
    path = tmp_path / "retail.csv"
    path.write_text(RETAIL + "".join(f"{line}\n" for line in lines))
    found = {name: rows(content) for name, content in landed("online-retail", path).items()}
    item = {"item_id": "A", "item_type": "product", "currency": "GBP"}
    old = item | {"title": "OLD NAME", "description": "OLD NAME", "price": "2.10"}
    beside = {"item_id": "B", "item_type": "product", "currency": "GBP", "title": "damaged", "description": "damaged"}
    assert found == {
        "item_catalog/2010-12-01/online-retail.jsonl": [old, beside],
        # In file order the name of 1 December is written after that of 3 December, and so is its price.
        "item_catalog/2010-12-03/online-retail.jsonl": [old, beside],
        "user_profiles/2010-12-01/online-retail.jsonl": [{"user_id": "1", "country": "Norway"}],
        "user_profiles/2010-12-03/online-retail.jsonl": [{"user_id": "1", "country": "Norway"}],
    }


def test_landing_again_gives_the_same_bytes_and_nothing_else(public_data, landed):
    path = sorted((public_data / "online-retail" / "by-day").glob("*.csv.gz"))[0]
    assert landed("online-retail", path) == landed("online-retail", path)


def test_a_day_appears_with_its_whole_file(tmp_path):
    path = tmp_path / "crm" / "2026-11-22" / "customers.csv"
    with whole_file(path) as file:
        file.write(b"half")
        assert not path.parent.exists()
        file.write(b" and half")
    assert files_below(tmp_path) == {"crm/2026-11-22/customers.csv": b"half and half"}


def test_a_file_that_fails_leaves_the_day_as_it_was(tmp_path):
    path = tmp_path / "2026-11-22" / "customers.csv"
    for content in (b"", b"old"):
        with pytest.raises(ZeroDivisionError), whole_file(path) as file:
            file.write(b"half")
            raise ZeroDivisionError
        assert files_below(tmp_path) == ({"2026-11-22/customers.csv": content} if content else {}) or not content
        with whole_file(path) as file:
            file.write(b"old")
    assert files_below(tmp_path) == {"2026-11-22/customers.csv": b"old"}


def test_other_deliveries_of_a_day_stay(tmp_path):
    for name, content in (("a.csv", b"1"), ("b.csv", b"2"), ("a.csv", b"3")):
        with whole_file(tmp_path / "2026-11-22" / name) as file:
            file.write(content)
    assert files_below(tmp_path) == {"2026-11-22/a.csv": b"3", "2026-11-22/b.csv": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["2026-11-22"]
