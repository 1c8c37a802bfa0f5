import gzip
from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.sources.datasets import IMPORTERS

HEADER = (
    ",timestamp,item_id,position,click,propensity_score,"
    "user_feature_0,user_feature_1,user-item_affinity_0,user-item_affinity_1\n"
)
ROW = "{number},2019-11-24 00:00:{second}.5+00:00,{item},3,{click},0.0125,aa,bb,0.0,2.0\n"


def row(number: int, second: int = 10, item: int = 14, click: str = "0") -> str:
    return ROW.format(number=number, second=second, item=item, click=click)


def log(folder: Path, rows: str, policy: str = "random", campaign: str = "all", header: str = HEADER) -> Path:
    path = folder / policy / campaign
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{campaign}.csv").write_text(header + rows)
    return folder


def test_a_row_becomes_an_impression_and_a_clicked_one_a_click_of_the_same_recommendation(tmp_path, events):
    found = events("open-bandit", log(tmp_path, row(7, click="1")))
    shared = {
        "anonymous_id": "open-bandit-random-all-7",
        "item_id": "all-14",
        "event_ts": "2019-11-24T00:00:10.5Z",
        "list_id": "all",
        "position": 3,
        "recommendation_id": "random-all-7",
        "source": "open-bandit",
    }
    assert found == [
        shared
        | {
            "event_id": "open-bandit:random:all:7",
            "type": "impression",
            "model": "random",
            "propensity": 0.0125,
            "properties": {"user_features": ["aa", "bb"], "affinities": {"1": 2.0}},
        },
        shared | {"event_id": "open-bandit:random:all:7:click", "type": "click"},
    ]


def test_logs_of_both_policies_and_all_campaigns_come_together_by_time(tmp_path, events):
    log(tmp_path, row(0, 30) + row(1, 10))
    log(tmp_path, row(0, 20), "bts", "men")
    log(tmp_path, row(0, 40), "bts", "all")
    found = [(event["model"], event["list_id"], event["item_id"]) for event in events("open-bandit", tmp_path)]
    assert found == [
        ("random", "all", "all-14"),
        ("bts", "men", "men-14"),
        ("random", "all", "all-14"),
        ("bts", "all", "all-14"),
    ]


def test_everything_is_accepted_and_the_same_when_loaded_again(tmp_path, load, outcomes):
    log(tmp_path, "".join(row(i, 10 + i % 50, click=str(i % 2)) for i in range(100)))
    lines = load("open-bandit", tmp_path)
    assert len(lines) == 150
    assert set(outcomes(lines)) == {"accepted"}
    assert load("open-bandit", tmp_path) == lines


def test_a_gzipped_log_is_read(tmp_path, load):
    plain = load("open-bandit", log(tmp_path, row(1)))
    path = tmp_path / "random/all/all.csv"
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert load("open-bandit", tmp_path) == plain


def test_small_propensities_may_be_written_with_an_exponent(tmp_path, events):
    log(tmp_path, row(1).replace("0.0125", "5e-05"))
    assert events("open-bandit", tmp_path)[0]["propensity"] == 5e-05


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (("0.0125", "often"), ["wrong_type"]),
        (("0.0125", "0"), ["propensity_out_of_range"]),
        ((",3,", ",first,"), ["wrong_type"]),
        (("2019-11-24 00", "yesterday 00"), ["unparseable_event_ts"]),
        (("2019-11-24", "2019-13-24"), ["unparseable_event_ts"]),
        ((",0,0.0125", ",maybe,0.0125"), ["accepted", "unknown_type"]),
        ((",aa,bb", ""), ["missing_type"]),
    ],
)
def test_cells_that_cannot_be_read_are_left_to_ingestion(tmp_path, load, outcomes, change, outcome):
    log(tmp_path, row(1).replace(*change))
    assert outcomes(load("open-bandit", tmp_path)) == outcome


def test_a_log_without_affinities_is_read(tmp_path, events):
    log(tmp_path, "1,2019-11-24 00:00:10+00:00,0,1,0,1.0,aa\n", header=HEADER[: HEADER.index(",user_feature_1")] + "\n")
    assert events("open-bandit", tmp_path)[0]["properties"] == {"user_features": ["aa"], "affinities": None}


@pytest.mark.parametrize(
    "header", [HEADER[1:], HEADER.replace("click", "clicked"), HEADER.replace("user_feature_1", "user_feature_0")]
)
def test_another_header_is_refused(tmp_path, header):
    with pytest.raises(UserError, match="all.csv has the columns .*Expected one without a name, timestamp"):
        IMPORTERS["open-bandit"].read(log(tmp_path, "", header=header))


def test_a_folder_without_logs_is_refused(tmp_path):
    (tmp_path / "all").mkdir()
    with pytest.raises(UserError, match="holds nothing like random/all/all.csv. Name the folder that"):
        IMPORTERS["open-bandit"].read(tmp_path)
