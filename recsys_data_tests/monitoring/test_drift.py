"""Planted drift is found on its day, quiet days raise no alarm, and days too small to evaluate are not evaluated."""

import re

import pytest

from recsys_data.contracts import load_contracts
from recsys_data.days import day_key
from recsys_data.errors import ContractError, UserError
from recsys_data.monitoring.drift import drift, watched
from recsys_data.monitoring.drift.columns import compared_of
from recsys_data.settings import Settings
from recsys_data.storage.tables import open_lake
from recsys_data_tests.support.contract_files import builtin, columns_of, load
from recsys_data_tests.support.trade import FIRST, store_catalogue, store_events

BEFORE, DAY = range(28), range(28, 29)


def day(number):
    return day_key(FIRST + number)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(dir=str(tmp_path_factory.mktemp("drift")))


@pytest.fixture(scope="module")
def quiet(settings):
    """Thirty-seven days of a shop in which nothing changes."""
    lake = open_lake(settings, load_contracts())
    store_events(lake, range(37))
    store_catalogue(lake, range(37))
    return lake


def planted(tmp_path, **changes):
    """The report on a day that has these columns instead, after four quiet weeks."""
    settings = Settings(dir=str(tmp_path))
    lake = open_lake(settings, load_contracts())
    store_events(lake, BEFORE)
    store_events(lake, DAY, **changes)
    return drift(lake, settings, "interactions", day(28))


def drifted(report):
    return {(one.column, one.measure) for one in report.drifted}


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.integration)])
def test_thirty_quiet_days_raise_no_alarm(quiet, settings, step):
    days = range(7, 37, step)
    reports = [drift(quiet, settings, name, day(n)) for name in ("interactions", "item_catalog") for n in days]
    assert all(report.findings and not report.note for report in reports)
    assert [(report.day, one) for report in reports for one in report.drifted] == []


def test_a_day_is_compared_with_its_weekday_or_else_with_the_week_before(quiet, settings):
    early, late = (drift(quiet, settings, "interactions", day(n)) for n in (9, 33))
    assert (early.reference, early.seasonal) == ([day(n) for n in range(8, 1, -1)], False)
    assert (late.reference, late.seasonal) == ([day(26), day(19), day(12), day(5)], True)


def test_a_switched_currency_is_found(tmp_path):
    report = planted(tmp_path, currency="CASE WHEN price IS NOT NULL THEN 'USD' END")
    assert drifted(report) == {("currency", "psi"), ("currency", "jensen_shannon")}
    assert "EUR 100.0% -> 0.0%" in report.drifted[0].explanation
    assert {one.name: (one.before, one.now) for one in report.worst} == {"EUR": (1.0, 0.0), "USD": (0.0, 1.0)}


def test_a_column_that_is_missing_in_a_fifth_of_the_rows_that_have_it_is_found(tmp_path):
    report = planted(tmp_path, price="CASE WHEN hash(n) % 5 > 0 THEN price END")
    assert drifted(report) == {("price", "null_share")}
    (found,) = report.drifted
    assert found.part in ("click", "purchase")
    assert found.value == pytest.approx(0.2, abs=0.05)
    assert found.explanation.startswith(f"{found.part}: NULL 0.0% -> ")


def test_a_category_of_events_whose_share_doubles_is_found(tmp_path):
    # Purchases: 5 % -> 10 %.
    more = "CASE WHEN r1 >= 0.90 AND type = 'click' THEN 'purchase' ELSE type END"
    report = planted(tmp_path, type=more, price="CASE WHEN type IN ('click', 'purchase') THEN price END")
    assert ("type", "psi") in drifted(report)
    explanation = next(one.explanation for one in report.drifted if one.column == "type")
    assert re.search(r"purchase [45]\.\d% -> (9|10)\.", explanation)


def test_a_category_of_the_catalogue_whose_share_doubles_is_found(tmp_path):
    settings = Settings(dir=str(tmp_path))
    lake = open_lake(settings, load_contracts())
    store_catalogue(lake, BEFORE, a_day=2000)
    moved = "CASE WHEN hash(n, 'moved') % 4 = 0 THEN ['Shop', 'Books'] ELSE category_path END"
    store_catalogue(
        lake, DAY, a_day=2000, category_path=moved, price="CASE WHEN n % 3 = 0 THEN price * 2 ELSE price END"
    )
    report = drift(lake, settings, "item_catalog", day(28))
    assert {one.column for one in report.drifted} == {"category_path", "price"}
    assert "Books" in next(one.explanation for one in report.drifted if one.column == "category_path")


def test_half_of_the_events_missing_is_found(tmp_path):
    settings = Settings(dir=str(tmp_path))
    lake = open_lake(settings, load_contracts())
    store_events(lake, BEFORE)
    store_events(lake, DAY, a_day=2500)
    report = drift(lake, settings, "interactions", day(28))
    assert drifted(report) == {("rows", "volume")}
    assert "the median of 4 Mondays is" in report.drifted[0].explanation


def test_small_days_are_not_judged(tmp_path):
    settings = Settings(dir=str(tmp_path))
    lake = open_lake(settings, load_contracts())
    store_events(lake, BEFORE, a_day=60)
    store_events(lake, DAY, a_day=60, currency="'USD'")
    report = drift(lake, settings, "interactions", day(28))
    assert not report.findings
    assert report.note == "Only 0 days to compare with have 100 rows; 3 are needed."


def test_values_of_personal_texts_are_not_compared_and_not_shown(quiet):
    compared = compared_of(quiet.contracts["interactions"], quiet.contracts)
    kinds = {one.kind for one in compared if one.name in ("user_id", "query", "properties")}
    assert kinds == {"missing"}
    assert "item_id.category_path" in {one.name for one in compared}


def test_contracts_say_what_is_drift(tmp_path):
    document = builtin("interactions")
    columns = {one["name"]: one for one in columns_of(document)}
    columns["currency"]["customProperties"] = [{"property": "drift", "value": False}]
    columns["price"]["customProperties"] = [{"property": "drift", "value": {"psi": 9, "rows": 10}}]
    contracts = load(tmp_path / "contracts", document)
    assert contracts["interactions"].column("price").drift.psi == 9
    assert "currency" not in {one.name for one in compared_of(contracts["interactions"], contracts)}
    document["schema"][0]["customProperties"].append({"property": "drift", "value": False})
    assert "interactions" not in watched(load(tmp_path / "contracts", document))


@pytest.mark.parametrize("limits", [{"psy": 1}, {"psi": -1}, {"rows": 2.5}, {"volume": True}, "much"])
def test_limits_that_make_no_sense_are_refused(tmp_path, limits):
    document = builtin("interactions")
    columns_of(document)[-1]["customProperties"].append({"property": "drift", "value": limits})
    with pytest.raises(ContractError, match="log_offset: customProperties: drift"):
        load(tmp_path / "contracts", document)


def test_only_streams_snapshots_and_feature_views_are_watched(quiet, settings):
    with pytest.raises(UserError, match="item_catalog_history is not watched for drift"):
        drift(quiet, settings, "item_catalog_history")
    assert {"interactions", "dead_letters", "item_catalog", "user_activity"} <= {*watched(quiet.contracts)}
