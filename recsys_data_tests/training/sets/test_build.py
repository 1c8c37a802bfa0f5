import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.features.lake import FeatureSources
from recsys_data.ingestion.batch.history.update import refresh_history
from recsys_data.ingestion.batch.snapshot import take_snapshot
from recsys_data.sql import limit_threads
from recsys_data.storage.maintenance.compaction import maintain_table
from recsys_data.training.sets import files
from recsys_data.training.sets.manifest import versions
from recsys_data_tests.support.contract_files import custom
from recsys_data_tests.support.shop import START
from recsys_data_tests.support.training import files_of


def test_files_hold_the_rows_of_each_split_with_labels_and_features(shop):
    shop.trade()
    built = shop.build()
    manifest = built.manifest
    assert list(manifest.files) == ["test.parquet", "train.parquet", "validation.parquet"]
    train = pq.read_table(built.folder / "train.parquet")
    assert {"visitor_id", "item_id", "timestamp", "position", "label", "label_type", "negative"} <= set(
        train.column_names
    )
    assert {"item_clicks__clicks_1h", "user_events__events", "item_clicks__known"} <= set(train.column_names)
    assert not [name for name in train.column_names if name.startswith("#")]
    assert train.column_names == list(manifest.columns)
    assert train["timestamp"].to_pylist() == sorted(train["timestamp"].to_pylist())
    counts = manifest.counts
    assert counts["rows"] == sum(counts[split] for split in ("train", "validation", "test", "gap"))
    assert counts["train"] == len(train) == manifest.files["train.parquet"].rows
    assert set(train["label"].to_pylist()) == {0, 1, 5}
    assert manifest.leakage["rows"] > 0


def test_features_are_those_of_the_moment_of_the_row(shop):
    shop.happen((1, "impression", "u", "a"), (1.5, "click", "u", "a"), (1.75, "impression", "u", "a"))
    shop.happen((2.5, "click", "u", "a"), (30, "impression", "u", "b"))
    shop.declare(split={"by": "none"})
    rows = pq.read_table(shop.build().folder / "train.parquet").to_pylist()
    assert [(row["item_clicks__clicks_1h"], row["user_events__events"]) for row in rows[:2]] == [(0, 0), (1, 2)]


def test_a_build_of_the_same_inputs_gives_the_same_version_and_new_events_the_next(shop):
    shop.trade()
    first = shop.build()
    again = shop.build()
    assert (first.new, again.new, again.manifest) == (True, False, first.manifest)
    shop.trade(200, 220)
    third = shop.build()
    assert (third.new, third.manifest.version) == (True, 2)
    assert versions(shop.settings, "clicks") == [1, 2]


def land_prices(shop, day, price):
    folder = shop.settings.landing_dir / "item_catalog" / day
    folder.mkdir(parents=True, exist_ok=True)
    items = [{"item_id": f"i{n}", "title": "T", "price": price + n, "currency": "EUR"} for n in range(11)]
    (folder / "part.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    take_snapshot(shop.open_lake(), shop.settings, "item_catalog", date.fromisoformat(day), True)
    refresh_history(shop.open_lake(), "item_catalog", shop.settings.staging_dir)


def test_a_rebuild_gives_the_same_bytes_whatever_was_stored_since(shop):
    shop.trade()
    land_prices(shop, "2026-01-10", 1)
    shop.declare(features=["item_clicks", "user_events", "item_prices"])
    built = shop.build()
    was = files_of(built.folder)
    prices = pq.read_table(built.folder / "test.parquet")["item_prices__price"]
    assert prices.null_count < len(prices)
    for path in built.folder.glob("*.parquet"):
        path.unlink()
    # Late events, new ones, another day of the catalogue, an identity, compaction, snapshots that expire.
    shop.happen((3, "click", "u1", "i1"), (4, "impression", "u2", "i2", {"list_id": "l1"}))
    shop.trade(200, 260)
    shop.happen((5, "identify", "u9", None, {"anonymous_id": "x"}))
    land_prices(shop, "2026-01-12", 100)
    later = datetime.now(UTC) + timedelta(hours=2)
    for name in ("interactions", "identities", "item_catalog_history"):
        maintain_table(shop.open_lake(), name, later)
    again = shop.rebuild()
    assert files_of(again.folder) == was
    assert shop.build().manifest.version == 2
    assert files_of(shop.rebuild(version=1).folder) == was


def test_bytes_do_not_depend_on_threads_or_the_size_of_batches(shop, monkeypatch):
    shop.trade()
    was = files_of(shop.build().folder)
    monkeypatch.setattr(files, "BATCH_ROWS", 7)
    limit_threads(1)
    try:
        assert files_of(shop.rebuild().folder) == was
    finally:
        limit_threads(0)


def test_row_groups_have_one_size_whatever_the_batches(shop, monkeypatch):
    monkeypatch.setattr(files, "GROUP_ROWS", 16)
    shop.trade()
    path = shop.build().folder / "train.parquet"
    groups = pq.ParquetFile(path).metadata
    sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert set(sizes[:-1]) == {16}
    was = path.read_bytes()
    monkeypatch.setattr(files, "BATCH_ROWS", 5)
    shop.rebuild()
    assert path.read_bytes() == was


def test_a_rebuild_is_refused_where_rows_are_gone_and_nothing_is_replaced(shop):
    shop.trade()
    built = shop.build()
    was = files_of(built.folder)
    table = shop.open_lake().table("interactions")
    table.delete(f"event_ts < '{(START + timedelta(days=1)).isoformat()}'")
    with pytest.raises(UserError, match="interactions does not hold what .* was built from: .* rows then"):
        shop.rebuild()
    assert files_of(built.folder) == was


def test_a_rebuild_reads_the_feature_views_as_they_were(shop, contract_folder):
    from recsys_data.contracts import load_contracts

    shop.trade()
    was = files_of(shop.build().folder)
    path = next(contract_folder.rglob("user_events*.yaml"))
    text = path.read_text()
    try:
        document = yaml.safe_load(text)
        document["schema"][0]["properties"][-1] |= {
            "customProperties": custom(function="count", filter="type = 'view'")
        }
        path.write_text(yaml.safe_dump(document))
        shop.contracts = load_contracts(contract_folder)
        assert files_of(shop.rebuild().folder) == was
        assert files_of(shop.build().folder) != was
    finally:
        path.write_text(text)


def test_a_feature_that_knows_the_future_is_refused(shop, monkeypatch):
    for day in range(9, 15):
        land_prices(shop, f"2026-01-{day:02d}", day)
    shop.trade()
    shop.declare(features=["item_prices"])
    stored = FeatureSources._stored

    def early(self, dataset, keep):
        if dataset != "item_catalog_history":
            return stored(self, dataset, keep)
        moved = "valid_from - INTERVAL 2 DAY AS valid_from, valid_to - INTERVAL 2 DAY AS valid_to"
        return f"SELECT * REPLACE ({moved}) FROM ({stored(self, dataset, keep)})"

    shop.build()
    monkeypatch.setattr(FeatureSources, "_stored", early)
    shop.declare(features=["item_prices"], seed=7)
    with pytest.raises(UserError, match="clicks: 1 features change .* item_prices__price of "):
        shop.build()
    assert versions(shop.settings, "clicks") == [1]


def test_features_are_compared_at_three_moments_also_where_many_rows_share_one(shop):
    shop.trade(0, 60)
    shop.declare(negatives={"sampled": 9}, split={"by": "none"})
    manifest = shop.build().manifest
    rows = manifest.counts["rows"]
    assert manifest.leakage == {"moments": 3, "rows": 3 * min(rows, 100)}
    assert rows > 100


def test_a_feature_view_cannot_see_labels(shop, contract_folder):
    from recsys_data.contracts import load_contracts
    from recsys_data_tests.support.contract_files import load
    from recsys_data_tests.support.feature_views import feature, key, view_file

    leaky = view_file("leaky", key("item_id"), feature("n", function="count"),
        feature("known_label", "number", expression="n + request.label"), request={"label": "number"})  # fmt: skip
    shop.contracts = load(contract_folder.parent / "leaky", leaky) | dict(load_contracts(contract_folder))
    shop.trade()
    shop.declare(features=["leaky"])
    with pytest.raises(UserError, match="spine has no column label"):
        shop.build()


def test_a_purpose_that_is_not_permitted_is_refused_with_the_line_of_the_contract(shop):
    shop.trade()
    shop.declare(features=["user_attributes"], purpose="fraud")
    with pytest.raises(
        UserError, match=r"user_attributes\.\w+ may be used for .*, not for fraud \(user_profiles.odcs.yaml, line \d+"
    ):
        shop.build()


def test_two_builds_at_once_are_one_after_the_other(shop, monkeypatch):
    from recsys_data.leases import file_lock
    from recsys_data.training.sets import build

    shop.trade(0, 20)
    monkeypatch.setattr(build, "LOCK_SECONDS", 0.1)
    shop.settings.training_dir.mkdir(parents=True)
    with file_lock(shop.settings.training_dir / "clicks.lock", 1), pytest.raises(Transient, match="Another process"):
        shop.build()


@pytest.mark.parametrize("error", [duckdb.OutOfMemoryException, duckdb.IOException])
def test_a_build_without_memory_or_space_says_so_and_leaves_nothing(shop, monkeypatch, error):
    from recsys_data.training.sets import build

    def full(rows, folder, *more):
        (folder / "train.parquet").write_bytes(b"begun")
        raise error("there was no room.\nadvice")

    shop.trade(0, 20)
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_rows", full)
        with pytest.raises(Transient, match="clicks could not be built: there was no room. Free memory, or space in"):
            shop.build()
    assert list((shop.settings.training_dir / "staging").iterdir()) == []
    assert shop.build().manifest.version == 1


def test_files_of_old_versions_are_removed_and_can_be_rebuilt(shop):
    shop.trade(0, 100)
    was = files_of(shop.build().folder)
    for n in range(3):
        shop.trade(100 + n * 10, 110 + n * 10)
        shop.build()
    folder = shop.settings.training_dir / "sets" / "clicks" / "1"
    assert files_of(folder) == {}
    shop.rebuild(version=1)
    assert files_of(folder) == was


def test_a_rebuild_that_ends_half_way_leaves_files_that_the_next_one_completes(shop, monkeypatch):
    shop.trade()
    built = shop.build()
    was = files_of(built.folder)
    for path in built.folder.glob("*.parquet"):
        path.write_bytes(b"damaged")
    replace = Path.replace

    def dying(path, target):
        if (built.folder / "test.parquet").read_bytes() != b"damaged":
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", dying)
        shop.rebuild()
    assert sorted(files_of(built.folder).values()) == sorted([b"damaged", b"damaged", was["test.parquet"]])
    assert files_of(shop.rebuild().folder) == was
    assert list((shop.settings.training_dir / "staging").iterdir()) == []


def test_a_folder_whose_manifest_is_gone_keeps_its_number(shop):
    shop.trade(0, 100)
    for name in ("manifest.json", "train.parquet"):
        (shop.build().folder / name).unlink()
    # The first lost its manifest, the second a file: a build of the same inputs makes the next one.
    assert (shop.build().manifest.version, versions(shop.settings, "clicks")) == (3, [2, 3])


def test_a_damaged_manifest_stops_no_build(shop):
    shop.trade(0, 100)
    folder = shop.build().folder
    (folder / "manifest.json").write_text("{")
    with pytest.raises(Permanent, match="1/manifest.json is damaged: .* or build again"):
        shop.rebuild()
    assert shop.build().manifest.version == 2
    for n in range(2):
        shop.trade(100 + n * 10, 110 + n * 10)
        shop.build()
    assert versions(shop.settings, "clicks") == [1, 2, 3, 4]
    assert files_of(folder) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"manifest.json has the format 2, and this version of recsys-data reads 1"),
        ({"cutoff": "yesterday"}, "manifest.json is damaged: Invalid isoformat string: 'yesterday'"),
        ({"sources": 1}, r"manifest.json is damaged: Expected `object`, got `int` - at `\$.sources`"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused(shop, changes, message):
    shop.happen((1, "click", "u", "a"), (30, "page_view", "u", None))
    shop.declare(features=[])
    path = shop.build().folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(Permanent, match=message):
        shop.rebuild()


def test_a_set_that_was_never_built_says_how_to_build_it(shop):
    with pytest.raises(UserError, match="clicks has no version: none was built. Run: recsys-data training-set build"):
        shop.rebuild()
    with pytest.raises(UserError, match="'none' is not a training set; choose from .*clicks"):
        shop.build("none")
    with pytest.raises(UserError, match="There are no interactions"):
        shop.build()


def test_a_cutoff_leaves_out_what_happened_later(shop):
    shop.trade()
    built = shop.build(cutoff=START + timedelta(hours=50))
    newest = max(pq.read_table(path)["timestamp"].to_pylist()[-1] for path in built.folder.glob("*.parquet"))
    assert newest <= START + timedelta(hours=46)


def test_nothing_is_final_that_lies_after_the_newest_event(shop):
    shop.happen((1, "impression", "u", "a"), (2, "page_view", "u", None))
    shop.declare(features=[])
    counts = shop.build(cutoff=START + timedelta(days=90)).manifest.counts
    assert (counts["impressions_immature"], counts["rows"]) == (1, 0)


def test_sql_of_a_declaration_that_fails_at_a_value_is_explained(shop):
    shop.happen((1, "click", "u", "a", {"session_id": "s"}), (30, "page_view", "u", None))
    shop.declare(features=[], labels=[{"type": "click", "weight": "session_id::INTEGER"}])
    with pytest.raises(UserError, match="clicks: labels: a weight cannot be computed: .* 's' .* Correct its SQL"):
        shop.build()


def test_a_weight_that_is_not_finite_is_no_outcome(shop):
    shop.happen(*((1, "rating", f"u{n}", "a", {"rating": n}) for n in range(3)), (30, "page_view", "u", None))
    shop.declare(features=[], rows="outcomes", labels=[{"type": "rating", "weight": "1 / (rating - 1)"}])
    assert shop.build().manifest.counts["outcomes"] == 2


@pytest.mark.parametrize(
    ("dataset", "column", "changes"),
    [
        ("contexts", "user_agent", {"bots": "user_agent LIKE '%bot%'"}),
        ("contexts", "device_type", {"context": ["device_type"]}),
        ("interactions", "value", {"labels": [{"type": "purchase", "weight": "value"}]}),
        ("interactions", "position", {}),
    ],
)
def test_a_purpose_is_asked_of_all_columns_that_are_read(shop, tmp_path, dataset, column, changes):
    from recsys_data_tests.support.contract_files import builtin, columns_of, load

    document = builtin(dataset)
    found = next(one for one in columns_of(document) if one["name"] == column)
    found.setdefault("customProperties", []).append({"property": "permittedUse", "value": ["fairness"]})
    shop.trade(0, 20)
    shop.contracts = load(tmp_path / "strict", document)
    shop.declare(features=[], **changes)
    with pytest.raises(UserError, match=rf"{dataset}\.{column} may be used for fairness, .*{dataset}\..*, line \d+"):
        shop.build()


def test_doubles_that_are_added_in_any_order_keep_six_digits(tmp_path):
    with duckdb.connect() as connection:
        rows = connection.sql(
            """SELECT * FROM (VALUES (1.23456789, 'e1'), (-9876543.21, 'e2'), (0.0, 'e3'), (NULL, 'e4'),
            ('inf'::DOUBLE, 'e5'), (1e-300, 'e6')) t(x, event_id),
            (SELECT 'train' AS "#split", 1.0::DOUBLE AS "#label")"""
        )
        files.write_rows(rows, tmp_path, {"x"})
    found = pq.read_table(tmp_path / "train.parquet")
    assert found["x"].to_pylist() == [1.23457, -9876540.0, 0.0, None, float("inf"), 1e-300]
    assert found.schema.field("label").type == pa.float64()


def test_declared_sets_of_the_package_are_sound(shop):
    from recsys_data.training.sets.declared import check_set, load_sets

    found = load_sets()
    assert {"impressions", "next_items"} <= found.keys()
    for one, path in found.values():
        check_set(path, one, shop.contracts)
