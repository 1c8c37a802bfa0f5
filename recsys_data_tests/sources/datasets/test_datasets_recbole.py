import gzip
import json
from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.sources.datasets import IMPORTERS

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def folder(path: Path, inter: str, **others: str) -> Path:
    for kind, text in {"inter": inter, **others}.items():
        (path / f"shop.{kind}").write_bytes(text.encode())
    return path


def states(path: Path) -> dict[tuple[str, str, str], list[dict]]:
    found = IMPORTERS["recbole"].read(path)
    return {
        (state.dataset, state.day.isoformat(), state.source): [
            json.loads(line) for lines in state.lines() for line in lines
        ]
        for state in found.states
    }


def test_rows_become_ratings_in_event_time_order_named_by_their_row(tmp_path, events, load, outcomes):
    path = folder(tmp_path, INTER + '196\t242\t3\t881250949\n7\t"5\t4.5\t881250948.0\n7\t5\t4.5\t881250948.25\n')
    assert events("recbole", path) == [
        {
            "event_id": "recbole:shop:2",
            "type": "rating",
            "user_id": "7",
            "item_id": '"5',
            "event_ts": "1997-12-04T15:55:48Z",
            "rating": 4.5,
            "source": "recbole",
        },
        {
            "event_id": "recbole:shop:3",
            "type": "rating",
            "user_id": "7",
            "item_id": "5",
            "event_ts": "1997-12-04T15:55:48.250000Z",
            "rating": 4.5,
            "source": "recbole",
        },
        {
            "event_id": "recbole:shop:1",
            "type": "rating",
            "user_id": "196",
            "item_id": "242",
            "event_ts": "1997-12-04T15:55:49Z",
            "rating": 3,
            "source": "recbole",
        },
    ]
    assert outcomes(load("recbole", path)) == ["accepted"] * 3
    assert load("recbole", path) == load("recbole", path)


def test_columns_may_come_in_any_order_and_others_are_properties_by_their_types(tmp_path, events):
    header = (
        "timestamp:float\titem_id:token\tdevice:token\twords:token_seq\tprices:float_seq\tdwell:float\trating:float\t"
        "user_id:token\n"
    )
    path = folder(tmp_path, header + "100\ti\tphone\tof  the shop\t1.5 2 x\t3e2\t1\tu\n101\ti\t\t\t\t\t1\tu\n")
    first, second = events("recbole", path)
    assert first["properties"] == {
        "device": "phone",
        "words": ["of", "the", "shop"],
        "prices": [1.5, 2, "x"],
        "dwell": 300,
    }
    assert second.get("properties", {}) == {"words": [], "prices": []}
    assert (first["user_id"], first["item_id"], first["rating"]) == ("u", "i", 1)


def test_what_cannot_be_read_is_passed_on_for_ingestion_to_reject(tmp_path, load, outcomes):
    path = folder(
        tmp_path, INTER + "1\t2\tgood\t100\n1\t2\t3\tnever\n1\t2\t3\n1\t2\t3\t881250949123\n1\t3\t3\t881250949\n"
    )
    lines = load("recbole", path)
    assert sorted(outcomes(lines)) == sorted(
        ["missing_type", "wrong_type", "unparseable_event_ts", "unparseable_event_ts", "accepted"]
    )


def test_users_and_items_are_known_on_the_day_of_the_newest_rating(tmp_path):
    path = folder(
        tmp_path,
        INTER + "1\t2\t3\t881250949\n1\t2\t3\t881000000\n",
        user="user_id:token\tage:token\tgender:token\n10\t24\tM\n9\t\tF\n",
        item="item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tlength:float\n"
        "2\tToy Story\t1995\tAnimation Children's\t81\n1\tOther\tunkonwn\t\t\n",
    )
    assert states(path) == {
        ("user_profiles", "1997-12-04", "recbole"): [
            {"user_id": "9", "gender": "F", "attributes": {}},
            {"user_id": "10", "gender": "M", "attributes": {"age": "24"}},
        ],
        ("item_catalog", "1997-12-04", "recbole"): [
            {"item_id": "1", "title": "Other", "genres": [], "attributes": {}},
            {
                "item_id": "2",
                "title": "Toy Story",
                "release_year": 1995,
                "genres": ["Animation", "Children's"],
                "attributes": {"length": "81"},
            },
        ],
    }


def test_a_broken_row_of_items_is_passed_on_without_an_id(tmp_path):
    path = folder(tmp_path, INTER + "1\t2\t3\t881250949\n", item="item_id:token\ttitle:token_seq\n1\tone\ttwo\n")
    assert states(path)["item_catalog", "1997-12-04", "recbole"] == [
        {"attributes": {"file": "shop.item", "row": "2", "text": "1\tone\ttwo"}}
    ]


def test_gzipped_files_are_read(tmp_path, events):
    (tmp_path / "x.inter.gz").write_bytes(gzip.compress((INTER + "1\t2\t3\t4\n").encode()))
    assert [event["event_id"] for event in events("recbole", tmp_path)] == ["recbole:x:1"]


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        ("user_id:token\titem_id:token\ttimestamp:float\n", "Expected also rating:float"),
        ("user_id:token\titem_id:token\trating:token\ttimestamp:float\n", "Expected also rating:float"),
        ("user_id,item_id,rating,timestamp\n", "Expected names with a type, separated by tabs"),
        ("user_id:token\tuser_id:float\n", "each name once"),
        ("user_id:thing\n", "types are token, token_seq, float, float_seq"),
    ],
)
def test_other_headers_are_refused(tmp_path, load, inter, message):
    with pytest.raises(UserError, match=message):
        load("recbole", folder(tmp_path, inter))


def test_a_folder_without_one_inter_file_is_refused(tmp_path, load):
    with pytest.raises(UserError, match="holds nothing. Expected one file NAME.inter"):
        load("recbole", tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.inter").write_text(INTER)
    with pytest.raises(UserError, match=r"holds a.inter, b.inter. Expected one file"):
        load("recbole", tmp_path)
