"""The check `drift` as Dagster evaluates it: numbers that the UI plots, and a table and picture of what drifted."""

from typing import Any

import dagster as dg

from recsys_data.contracts import load_contracts
from recsys_data.defs.monitoring.checks import checks_of, snapshot_checks
from recsys_data.defs.resources import SessionResource
from recsys_data.settings import Settings
from recsys_data.storage.tables import open_lake
from recsys_data_tests.support.trade import store_events


def drift_check(name):
    contract = load_contracts()[name]
    return next(one for one in (*checks_of(contract), *snapshot_checks(contract)) if one.name == "drift")


def test_a_drifted_day_fails_as_a_warning_with_table_numbers_and_picture(tmp_path):
    settings = Settings(dir=str(tmp_path))
    lake = open_lake(settings, load_contracts())
    store_events(lake, range(14))
    store_events(lake, range(14, 15), currency="CASE WHEN price IS NOT NULL THEN 'USD' END")
    result = drift_check("interactions").result(lake, settings, SessionResource())
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    shown: dict[str, Any] = {name: one.value for name, one in result.metadata.items()}
    assert shown["columns drifted"] == 1
    assert shown["psi currency"] > 1
    assert shown["null_share price"] < 0.05
    assert "| currency | psi |" in shown["drifted"]
    assert shown["currency before and now"].startswith("![plot](data:image/png;base64,")
    assert "EUR 100.0% -> 0.0%" in str(result.description)


def test_a_dataset_without_days_to_compare_passes(tmp_path):
    settings = Settings(dir=str(tmp_path))
    result = drift_check("item_catalog").result(open_lake(settings, load_contracts()), settings, SessionResource())
    assert result.passed
    assert result.description == "No day is over."


def test_streams_are_compared_once_a_day_and_not_after_each_consumer_run():
    assert drift_check("interactions").condition is not None
