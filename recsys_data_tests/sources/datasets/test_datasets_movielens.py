import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.sources.datasets import IMPORTERS

RATINGS = "userId,movieId,rating,timestamp\n"
TAGS = "userId,movieId,tag,timestamp\n"


@pytest.fixture(scope="module")
def real(public_data) -> list[bytes]:
    found = IMPORTERS["movielens"].read(public_data / "movielens-latest-small")
    return [line for batch in found for line in batch]


def folder(path: Path, ratings: str = RATINGS, tags: str = TAGS) -> Path:
    (path / "ratings.csv").write_bytes(ratings.encode())
    (path / "tags.csv").write_bytes(tags.encode())
    return path


def test_real_data_set_becomes_every_rating_and_tag_once_in_event_time_order(real):
    found = [json.loads(line) for line in real]
    assert Counter(event["type"] for event in found) == {"rating": 100_836, "tag": 3_683}
    assert len({event["event_id"] for event in found}) == 104_519
    times = [event["event_ts"] for event in found]
    assert times == sorted(times)
    assert len({event["user_id"] for event in found}) == 610
    assert {event["rating"] for event in found if event["type"] == "rating"} == {n / 2 for n in range(1, 11)}


def test_real_data_set_is_accepted_whole_and_the_same_when_loaded_again(public_data, real, load, outcomes):
    assert load("movielens", public_data / "movielens-latest-small") == real
    assert set(outcomes(real)) == {"accepted"}


def test_rows_become_native_events(tmp_path, events):
    found = events("movielens", folder(tmp_path, RATINGS + "1,31,2.5,1260759144\n", TAGS + "2,31,dark,1260759145\n"))
    assert found == [
        {
            "event_id": "movielens:rating:1:31:1260759144",
            "type": "rating",
            "user_id": "1",
            "item_id": "31",
            "event_ts": "2009-12-14T02:52:24Z",
            "rating": 2.5,
            "source": "movielens",
        },
        {
            "event_id": "movielens:tag:2:31:1260759145:a82fd95db10f",
            "type": "tag",
            "user_id": "2",
            "item_id": "31",
            "event_ts": "2009-12-14T02:52:25Z",
            "tag": "dark",
            "source": "movielens",
        },
    ]


def test_both_files_are_merged_by_time_and_keep_their_order_within_a_second(tmp_path, events):
    ratings = RATINGS + "1,1,4.0,300\n1,2,4.0,100\n1,3,4.0,200\n1,4,4.0,200\n"
    found = events("movielens", folder(tmp_path, ratings, TAGS + "1,5,x,200\n1,6,x,150\n"))
    assert [event["item_id"] for event in found] == ["2", "6", "3", "4", "5", "1"]


@pytest.mark.parametrize("tag", ['"a, b"', '"say ""no"""', '"two\nlines"', "日本 ☂", "back\\slash", 'in"side'])
def test_tags_keep_quotes_commas_line_ends_and_any_script(tmp_path, events, outcomes, load, tag):
    meant = tag[1:-1].replace('""', '"') if tag.startswith('"') else tag
    path = folder(tmp_path, tags=f"{TAGS}1,5,{tag},1260759145\n".replace("\n1", "\r\n1"))
    assert [event["tag"] for event in events("movielens", path)] == [meant]
    assert outcomes(load("movielens", path)) == ["accepted"]


def test_two_tags_of_a_user_for_a_movie_in_one_second_are_two_events(tmp_path, events):
    found = events("movielens", folder(tmp_path, tags=TAGS + "1,5,dark,200\n1,5,funny,200\n"))
    assert len({event["event_id"] for event in found}) == 2


def test_gzipped_files_give_the_same_lines(tmp_path, load):
    plain, zipped = tmp_path / "plain", tmp_path / "zipped"
    plain.mkdir()
    zipped.mkdir()
    folder(plain, RATINGS + "1,1,4.0,300\n1,2\n", TAGS + "1,5,x,200")
    for file in plain.iterdir():
        (zipped / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert load("movielens", zipped) == load("movielens", plain)


def test_columns_may_stand_in_another_order(tmp_path, events):
    found = events("movielens", folder(tmp_path, "timestamp,rating,userId,movieId\n300,4.0,u,m\n"))
    assert [(event["user_id"], event["item_id"], event["rating"]) for event in found] == [("u", "m", 4.0)]


@pytest.mark.parametrize(
    ("row", "reason", "kept"),
    [
        ("1,2,4.0,soon", "unparseable_event_ts", "soon"),
        ("1,2,4.0,1260759144000", "unparseable_event_ts", "1260759144000"),
        ("1,2,4.0,1260759144.5", "unparseable_event_ts", "1260759144.5"),
        ("1,2,4.0,", "missing_event_ts", ""),
        ("1,2,four,300", "wrong_type", "four"),
        ("1,2,,300", "wrong_type", ""),
        ("1,2,11,1260759144", "rating_out_of_range", "11"),
        ("1,,4.0,1260759144", "missing_item", ""),
        (",2,4.0,1260759144", "missing_actor", ""),
        ("1,2,4.0,0", "event_before_first_day", "1970-01-01T00:00:00Z"),
        ("1,2,4.0", "missing_type", "1,2,4.0"),
        ("1,2,4.0,1260759144,extra", "missing_type", "1,2,4.0,1260759144,extra"),
    ],
)
def test_row_that_is_no_event_is_passed_on_for_a_precise_reason(tmp_path, load, outcomes, row, reason, kept):
    path = folder(tmp_path, f"{RATINGS}{row}\n7,8,3.5,1260759144\n")
    lines = load("movielens", path)
    assert sorted(outcomes(lines)) == sorted(["accepted", reason])
    assert f'"{kept}"'.encode() in lines[outcomes(lines).index(reason)] or f":{kept},".encode() in b"".join(lines)


def test_row_without_a_time_comes_first_and_names_its_place(tmp_path, events):
    path = folder(tmp_path, RATINGS + "1,2,4.0,300\n1,2\n", TAGS + "1,2,x,200,300\n")
    assert [event["properties"] for event in events("movielens", path)[:2]] == [
        {"file": "ratings.csv", "row": 3, "text": "1,2"},
        {"file": "tags.csv", "row": 2, "text": "1,2,x,200,300"},
    ]


def test_file_of_broken_rows_alone_loses_none(tmp_path, load):
    assert len(load("movielens", folder(tmp_path, RATINGS + "1\n" * 1000))) == 1000


def test_missing_file_is_named_with_what_was_found(tmp_path):
    folder(tmp_path)
    (tmp_path / "tags.csv").unlink()
    with pytest.raises(UserError, match=r"no tags\.csv or tags\.csv\.gz; it holds ratings\.csv"):
        IMPORTERS["movielens"].read(tmp_path)


def test_file_that_is_there_plain_and_gzipped_is_refused(tmp_path):
    folder(tmp_path)
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match=r"both ratings\.csv and ratings\.csv\.gz"):
        IMPORTERS["movielens"].read(tmp_path)
