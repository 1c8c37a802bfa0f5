"""What is exported is read back by the reader of its format and equals the rows of the set."""

import csv
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.errors import Permanent, UserError
from recsys_data.sources.datasets import google_retail, recbole
from recsys_data.training.exports import FORMATS, export
from recsys_data.training.exports.recbole import RESERVED
from recsys_data.training.sets.declared import Label, TrainingSet
from recsys_data.training.sets.manifest import File, Manifest, encode

NOON = datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC)
BASE = {
    "event_id": pa.string(), "visitor_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(),
    "session_id": pa.string(), "list_id": pa.string(), "recommendation_id": pa.string(), "position": pa.int64(),
    "model": pa.string(), "variant": pa.string(), "score": pa.float64(), "propensity": pa.float64(),
    "query_id": pa.string(), "timestamp": pa.timestamp("us", "UTC"), "label": pa.float64(),
    "label_type": pa.string(), "negative": pa.string(),
}  # fmt: skip
FEATURES = {
    "device": pa.string(), "v__clicks": pa.int64(), "v__rate": pa.float64(), "v__known": pa.bool_(),
    "v__last": pa.timestamp("us", "UTC"), "v__items": pa.list_(pa.string()),
}  # fmt: skip
CLICKS = [Label("click"), Label("add_to_cart", 3), Label("purchase", 5)]
AWKWARD = ["007", 'a,"b"', '"quoted"', "Ünïcødé 🛒", "it's; here", "a\\b", "  spaces  ", "1e5", "=1+1", "#c"]


def row(event: str, visitor: str, item: str, label: float = 0, kind: str | None = None, **more) -> dict:
    return {
        "event_id": event,
        "visitor_id": visitor,
        "item_id": item,
        "query_id": "q",
        "timestamp": NOON,
        "label": float(label),
        "label_type": kind,
        "negative": None if kind else "impression",
        **more,
    }


def made(folder: Path, splits: dict[str, list[dict]], labels=CLICKS, rows: Any = "impressions", features=None):
    """A version of a set, as a build leaves it."""
    types = BASE | (features or {})
    schema = pa.schema(list(types.items()))
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, found in splits.items():
        path = folder / f"{split}.parquet"
        # Small row groups: an order that holds within one group only would show.
        pq.write_table(pa.Table.from_pylist(found, schema), path, row_group_size=3)
        files[path.name] = File(len(found), 0, path.stat().st_size, sha256(path.read_bytes()).hexdigest())
    manifest = Manifest(
        name="shown", version=3, built_at="", inputs="i", declaration=TrainingSet("shown", rows, labels),
        purpose="", known="commit", cutoff="2026-01-01T00:00:00Z", known_until=None,
        label_version="", sources={}, views={}, split={},
        counts={}, columns={name: str(kind) for name, kind in types.items()}, files=files, leakage={}, software={},
    )  # fmt: skip
    return folder, manifest


def awkward_set(folder: Path, ids: list[str]):
    """Ids with all that a format may stumble over; half of the visitors are not signed in."""
    train = [
        row(f"e{n}", user, item, (n + place) % 3 / 4, "click" if (n + place) % 3 else None,
            user_id=user if n % 2 else None, timestamp=NOON + timedelta(microseconds=10 * n + place))
        for n, user in enumerate(ids) for place, item in enumerate(reversed(ids))
    ]  # fmt: skip
    test = [row("t0", "new", "007", 1, "click"), row("t1", "007", "new item", 3, "add_to_cart", user_id="007")]
    return made(folder, {"train": train, "test": test}), train, test


@pytest.fixture
def awkward(tmp_path):
    return awkward_set(tmp_path / "set", AWKWARD)


@pytest.fixture
def unquoted(tmp_path):
    return awkward_set(tmp_path / "set", [one for one in AWKWARD if not one.startswith('"')])


def read_atomic(path: Path) -> pd.DataFrame:
    """As RecBole reads it: types from the header, separated by tabs."""
    types = dict(one.split(":") for one in path.read_text("utf-8").split("\n", 1)[0].split("\t"))
    kinds: dict[Any, Any] = {f"{name}:{kind}": float if kind == "float" else str for name, kind in types.items()}
    return pd.read_csv(path, delimiter="\t", dtype=kinds, encoding="utf-8", engine="python").set_axis(
        list(types), axis=1
    )


def test_recbole_reads_the_same_ids_labels_and_moments(unquoted, tmp_path):
    (folder, manifest), train, test = unquoted
    export(folder, manifest, "recbole", tmp_path / "out")
    for name, expected in (("train", train), ("test", test), ("valid", [])):
        found = read_atomic(tmp_path / f"out/shown/shown.{name}.inter")
        assert found["user_id"].tolist() == [one["visitor_id"] for one in expected]
        assert found["item_id"].tolist() == [one["item_id"] for one in expected]
        assert found["rating"].tolist() == [one["label"] for one in expected]
        assert found["label"].tolist() == [float(one["label"] > 0) for one in expected]
        moments = [datetime.fromtimestamp(0, UTC) + timedelta(microseconds=round(s * 1e6)) for s in found["timestamp"]]
        assert moments == [one["timestamp"] for one in expected]


def test_recbole_files_are_read_back_as_the_same_ratings(unquoted, tmp_path):
    (folder, manifest), train, _ = unquoted
    export(folder, manifest, "recbole", tmp_path / "out")
    for other in ("valid", "test"):
        (tmp_path / f"out/shown/shown.{other}.inter").unlink()
    found = [json.loads(line) for batch in recbole.read(tmp_path / "out/shown") for line in batch]
    assert [(one["user_id"], one["item_id"], one["rating"], one["properties"]["label"]) for one in found] == [
        (one["visitor_id"], one["item_id"], one["label"], float(one["label"] > 0)) for one in train
    ]
    assert [datetime.fromisoformat(one["event_ts"]) for one in found] == [one["timestamp"] for one in train]


def test_recbole_features_keep_their_values_and_missing_ones_stay_missing(tmp_path):
    first = row("a", "u", "i", device="a b", v__clicks=2**53, v__rate=1e-5, v__known=True)
    folder, manifest = made(tmp_path / "set", {"train": [first, row("b", "u", "i")]}, features=FEATURES)
    export(folder, manifest, "recbole", tmp_path / "out")
    found = read_atomic(tmp_path / "out/shown/shown.train.inter")
    assert found.iloc[0][["device", "v__clicks", "v__rate", "v__known"]].tolist() == ["a b", 2.0**53, 1e-5, "1"]
    assert found.iloc[1][["device", "v__clicks", "v__rate", "v__known"]].isna().all()
    summary = json.loads((tmp_path / "out/export.json").read_text())
    assert set(summary["columns_left_out"]) == {"v__last", "v__items"}


@pytest.mark.parametrize("item", ["a\tb", "a\nb", '"a"', "NA", "", "[PAD]"])
def test_recbole_refuses_ids_that_it_would_read_otherwise(tmp_path, item):
    folder, manifest = made(tmp_path / "set", {"train": [row("a", "u", item)]})
    with pytest.raises(UserError, match="item_id of shown 3 has"):
        export(folder, manifest, "recbole", tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["set"]


def test_every_word_that_pandas_reads_as_missing_is_reserved():
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(RESERVED) >= STR_NA_VALUES


def test_matrices_have_the_summed_labels_of_each_user_and_item(awkward, tmp_path):
    (folder, manifest), train, test = awkward
    again = [row("again", "007", "007", 0.75, "click"), row("more", "007", "007", 5, "purchase")]
    folder, manifest = made(tmp_path / "other", {"train": train + again, "test": test})
    export(folder, manifest, "implicit", tmp_path / "out")
    users = pq.read_table(tmp_path / "out/users.parquet").to_pydict()
    items = pq.read_table(tmp_path / "out/items.parquet").to_pydict()
    assert users["row"] == list(range(len(users["user_id"])))
    assert sorted(users["user_id"], key=str.encode) == users["user_id"]
    assert set(items["item_id"]) == {*AWKWARD, "new item"}
    for split, expected in (("train", train + again), ("test", test), ("validation", [])):
        matrix = scipy.sparse.load_npz(tmp_path / f"out/{split}.npz")
        assert matrix.format == "csr"
        assert matrix.shape == (len(users["user_id"]), len(items["item_id"]))
        sums = {}
        for one in expected:
            if one["label"] > 0:
                key = one["visitor_id"], one["item_id"]
                sums[key] = sums.get(key, 0) + one["label"]
        entries = matrix.tocoo()
        pairs = zip(entries.row, entries.col, entries.data, strict=True)
        assert {(users["user_id"][u], items["item_id"][i]): w for u, i, w in pairs} == sums


def ranked(tmp_path, **more):
    """Two queries whose rows alternate, with features."""
    train = [
        row(f"e{n}", "u", f"i{n}", n % 3, "click" if n % 3 else None, query_id=f"q{n % 2}", position=n // 2 + 1,
            device=["phone", "desk, top", None][n % 3], v__clicks=n, v__rate=None if n == 4 else n / 7,
            v__known=n % 2 == 0, propensity=0.5, **more)
        for n in range(7)
    ]  # fmt: skip
    validation = [row("v0", "u", "i0", 1, "click", query_id="q9", device="tablet")]
    return made(tmp_path / "set", {"train": train, "validation": validation}, features=FEATURES), train


def test_lightgbm_rows_are_sorted_by_query_with_a_size_for_each(tmp_path):
    (folder, manifest), train = ranked(tmp_path)
    export(folder, manifest, "lightgbm", tmp_path / "out")
    expected = sorted(train, key=lambda one: one["query_id"])
    described = json.loads((tmp_path / "out/features.json").read_text())
    assert described["features"] == ["device", "v__clicks", "v__rate", "v__known"]
    assert described["categories"] == {"device": ["desk, top", "phone", "tablet"]}
    with (tmp_path / "out/train.csv").open() as file:
        found = list(csv.DictReader(file))
    codes = described["categories"]["device"]
    texts = [None if one["device"] == "nan" else codes[int(one["device"])] for one in found]
    assert texts == [one["device"] for one in expected]
    assert [float(one["label"]) for one in found] == [one["label"] for one in expected]
    assert [int(one["v__known"]) for one in found] == [one["v__known"] for one in expected]
    rates = [np.nan if one["v__rate"] is None else one["v__rate"] for one in expected]
    np.testing.assert_array_equal([float(one["v__rate"]) for one in found], rates)
    with (tmp_path / "out/train.rows.csv").open() as file:
        beside = list(csv.DictReader(file))
    assert [one["event_id"] for one in beside] == [one["event_id"] for one in expected]
    assert [one["user_id"] for one in beside] == ["u"] * 7
    assert (tmp_path / "out/train.csv.query").read_text() == "4\n3\n"
    assert (tmp_path / "out/train.csv.position").read_text().split() == [str(one["position"]) for one in expected]
    assert not (tmp_path / "out/validation.csv.position").exists()


def test_lightgbm_loads_labels_groups_positions_and_names(tmp_path):
    lightgbm = pytest.importorskip("lightgbm")
    (folder, manifest), train = ranked(tmp_path)
    train.append(row("alone", "u", "i9", 2, "click", query_id="q5"))
    folder, manifest = made(tmp_path / "other", {"train": train}, features=FEATURES)
    export(folder, manifest, "lightgbm", tmp_path / "out")
    described = json.loads((tmp_path / "out/features.json").read_text())
    data = lightgbm.Dataset(
        str(tmp_path / "out/train.csv"),
        params={"header": True, "label_column": "name:label", "verbose": -1, "num_threads": 1},
        feature_name=described["features"],
        categorical_feature=list(described["categories"]),
    ).construct()
    expected = sorted(train, key=lambda one: one["query_id"])
    assert data.get_label().tolist() == [one["label"] for one in expected]
    assert data.get_group().tolist() == [4, 3, 1]
    assert data.get_feature_name() == ["device", "v__clicks", "v__rate", "v__known"]
    positions = data.get_position()
    assert len(set(positions.tolist())) == 5
    assert positions.tolist()[-1] not in positions.tolist()[:-1]


def test_lightgbm_needs_features(awkward, tmp_path):
    (folder, manifest), _, _ = awkward
    with pytest.raises(UserError, match="no features.*Declare feature views"):
        export(folder, manifest, "lightgbm", tmp_path / "out")


def test_personalize_interactions_are_the_positive_rows_with_what_was_shown_beside_them(tmp_path):
    train = [
        row("e1", "u,1", "b", position=2, user_id="u,1", list_id="q", session_id="s"),
        row("e2", "u,1", 'a"', 1, "click", position=1, user_id="u,1", session_id="s", recommendation_id="r"),
        row("e3", "u,1", "drawn", negative="sampled", user_id="u,1", session_id="s"),
        row("e4", "u2", "c", position=1),
        row("e5", "007", "d", 3, "add_to_cart", query_id="e5"),
        row("e6", "u,1", "later", position=3, user_id="u,1", session_id="another"),
    ]
    folder, manifest = made(tmp_path / "set", {"train": train})
    export(folder, manifest, "personalize", tmp_path / "out")
    with (tmp_path / "out/train/interactions.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    second = str(int(NOON.timestamp()))
    assert [list(one.values()) for one in found] == [
        ["u,1", 'a"', second, "click", "1.0", 'a"|b', "r"],
        ["007", "d", second, "add_to_cart", "3.0", "", ""],
    ]
    schema = json.loads((tmp_path / "out/interactions.schema.json").read_text())
    assert [one["name"] for one in schema["fields"]] == list(found[0])
    assert {one["name"]: one["type"] for one in schema["fields"]}["TIMESTAMP"] == "long"
    summary = json.loads((tmp_path / "out/export.json").read_text())
    assert summary["rows"] == {"train": 2, "validation": 0, "test": 0}
    assert summary["rows_left_out"] == {"label 0: only in IMPRESSION": 3, "label 0 and not shown": 1}
    assert not (tmp_path / "out/validation").exists()


def test_personalize_reads_back_awkward_ids_of_outcomes(awkward, tmp_path):
    _, train, _ = awkward
    folder, manifest = made(tmp_path / "other", {"train": train}, rows="outcomes")
    export(folder, manifest, "personalize", tmp_path / "out")
    with (tmp_path / "out/train/interactions.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    positive = [one for one in train if one["label"] > 0]
    assert [(one["USER_ID"], one["ITEM_ID"], float(one["EVENT_VALUE"])) for one in found] == [
        (one["visitor_id"], one["item_id"], one["label"]) for one in positive
    ]
    assert "IMPRESSION" not in found[0]


def test_personalize_refuses_items_that_impressions_would_split(tmp_path):
    folder, manifest = made(tmp_path / "set", {"train": [row("a", "u", "x|y", 1, "click")]})
    with pytest.raises(UserError, match=r"'x\|y'.*IMPRESSION"):
        export(folder, manifest, "personalize", tmp_path / "out")


def retail_events(path: Path) -> list[dict]:
    return [json.loads(line) for batch in google_retail.read(path) for line in batch]


def test_google_retail_events_are_read_back_as_the_same_interactions(awkward, tmp_path):
    (folder, manifest), train, test = awkward
    export(folder, manifest, "google-retail", tmp_path / "out")
    for split, rows in (("train", train), ("test", test)):
        expected = [one for one in rows if one["label"] > 0]
        found = retail_events(tmp_path / f"out/{split}.jsonl")
        assert [(one["anonymous_id"], one.get("user_id"), one["item_id"]) for one in found] == [
            (one["visitor_id"], one.get("user_id"), one["item_id"]) for one in expected
        ]
        assert [datetime.fromisoformat(one["event_ts"]) for one in found] == [one["timestamp"] for one in expected]
        kinds = {"click": "view", "add_to_cart": "add_to_cart"}
        assert [one["type"] for one in found] == [kinds[one["label_type"]] for one in expected]
    assert not (tmp_path / "out/validation.jsonl").exists()


def test_google_retail_clicks_beside_views_and_unknown_events_are_counted_not_written(tmp_path):
    train = [
        row("a", "u", "i", 1, "view", recommendation_id="token", session_id="s"),
        row("b", "u", "i", 1, "click"),
        row("c", "u", "i", 2, "like"),
        row("d", "u", "i", 9.5, "purchase"),
    ]
    labels = [Label("view"), Label("click"), Label("like", 2), Label("purchase", "value")]
    folder, manifest = made(tmp_path / "set", {"train": train}, labels, "outcomes")
    export(folder, manifest, "google-retail", tmp_path / "out")
    (event,) = retail_events(tmp_path / "out/train.jsonl")
    assert (event["type"], event["recommendation_id"], event["session_id"]) == ("view", "token", "s")
    left_out = json.loads((tmp_path / "out/export.json").read_text())["rows_left_out"]
    assert [reason.split(":")[0] for reason in left_out] == ["click", "like", "purchase"]
    export(folder, manifest, "google-retail", tmp_path / "paid", currency="EUR")
    bought = retail_events(tmp_path / "paid/train.jsonl")[-1]
    assert (bought["type"], bought["value"], bought["currency"], bought["quantity"]) == ("purchase", 9.5, "EUR", 1)


def test_google_retail_revenue_is_only_a_label_that_is_money(awkward, tmp_path):
    (folder, manifest), _, _ = awkward
    with pytest.raises(UserError, match="a purchase weighs 5"):
        export(folder, manifest, "google-retail", tmp_path / "out", currency="EUR")


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_set_gives_the_same_bytes(tmp_path, format):
    (folder, manifest), _ = ranked(tmp_path)
    for name in ("one", "two"):
        export(folder, manifest, format, tmp_path / name)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_rows_keep_their_order_whatever_the_threads(tmp_path):
    duckdb.sql(
        f"""COPY (SELECT range::VARCHAR AS event_id, (range % 900)::VARCHAR AS visitor_id, NULL::VARCHAR AS user_id,
            range::VARCHAR AS item_id, NULL::VARCHAR AS session_id, NULL::VARCHAR AS recommendation_id,
            'q' AS query_id, make_timestamptz(range) AS timestamp, 1.0 AS label, 'click' AS label_type,
            NULL::VARCHAR AS negative FROM range(120000)) TO '{tmp_path}/train.parquet' (ROW_GROUP_SIZE 4096)"""
    )
    _, manifest = made(tmp_path / "set", {"train": [row("a", "u", "i", 1, "click")]}, rows="outcomes")
    path = tmp_path / "train.parquet"
    manifest.files["train.parquet"] = File(120_000, 0, path.stat().st_size, sha256(path.read_bytes()).hexdigest())
    export(tmp_path, manifest, "recbole", tmp_path / "a")
    export(tmp_path, manifest, "google-retail", tmp_path / "b")
    expected = [str(n) for n in range(120_000)]
    lines = (tmp_path / "a/shown/shown.train.inter").read_text().splitlines()[1:]
    assert [line.split("\t")[1] for line in lines] == expected
    events = (tmp_path / "b/train.jsonl").read_text().splitlines()
    assert [json.loads(line)["productDetails"][0]["product"]["id"] for line in events] == expected


def test_a_folder_with_files_is_refused_and_an_empty_one_is_filled(awkward, tmp_path):
    (folder, manifest), _, _ = awkward
    out = tmp_path / "out"
    out.mkdir()
    files = export(folder, manifest, "implicit", out)
    assert out / "train.npz" in files
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(UserError, match="not an empty folder"):
        export(folder, manifest, "recbole", out)
    assert {path: path.read_bytes() for path in out.rglob("*")} == before


def test_files_that_are_damaged_or_removed_are_not_exported(awkward, tmp_path):
    (folder, manifest), _, _ = awkward
    path = folder / "test.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Permanent, match="damaged.*rebuild shown --version 3"):
        export(folder, manifest, "implicit", tmp_path / "out")
    path.unlink()
    with pytest.raises(UserError, match="rebuild shown --version 3"):
        export(folder, manifest, "implicit", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_formats_and_currencies_of_other_formats_are_refused(awkward, tmp_path):
    (folder, manifest), _, _ = awkward
    with pytest.raises(UserError, match="choose from recbole"):
        export(folder, manifest, "csv", tmp_path / "out")
    with pytest.raises(UserError, match="takes no currency"):
        export(folder, manifest, "recbole", tmp_path / "out", currency="EUR")


def test_the_command_exports_a_version_and_reports_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "state"))
    version = tmp_path / "state/training/sets/shown/3"
    _, manifest = made(version, {"train": [row("a", "u", "i", 1, "click"), row("b", "u", "j")]}, features=FEATURES)
    (version / "manifest.json").write_bytes(encode(manifest))
    command = ["training-set", "export", "shown", "--format", "implicit", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "train.npz" in result.stdout
    assert "Left out 1 rows: label 0: no entry" in result.stderr
    assert "Left out 6 columns" in result.stderr
    assert json.loads((tmp_path / "out/export.json").read_text())["version"] == 3
    again = CliRunner().invoke(cli, command)
    assert again.exit_code != 0
