"""The asset at the end of the lineage: what came of recommendations."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from recsys_data.contracts import load_contracts
from recsys_data.definitions import defs
from recsys_data_tests.support.shop import Shop

KEY = dg.AssetKey("recommendations")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    made = Shop(tmp_path / "data", load_contracts(), partitions=1)
    yield made
    made.close()


def materialized():
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs().resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[KEY])
        (made,) = result.get_asset_materialization_events()
        return made.materialization.metadata


def test_outcomes_are_shown_by_scenario_model_and_variant(shop):
    assert materialized()["answers"].value == 0
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    shown = {"recommendation_id": "r1", "event_ts": now, "received_at": now}
    about = {"list_id": "home", "model": "next_items/1", "variant": "a", "position": 1}
    shop.happen((0, "impression", "u1", "i1", shown | about), (0, "click", "u1", "i1", shown))
    found = materialized()
    assert (found["answers"].value, found["dagster/row_count"].value) == (1, 1)
    assert "| home | next_items/1 | a | 1 | 1 | 100.00%" in str(found["outcomes"].value)


def test_it_is_downstream_of_interactions_and_models():
    parents = {key.to_user_string() for key in defs().resolve_asset_graph().get(KEY).parent_keys}
    assert {"interactions", "next_items/item_knn", "impressions/ranker"} <= parents
