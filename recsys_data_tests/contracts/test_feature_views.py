import pytest

from recsys_data.contracts import load_contracts
from recsys_data.contracts.features.view import DAY, HOUR, Window
from recsys_data.contracts.model import Kind
from recsys_data.errors import ContractError
from recsys_data_tests.support.contract_files import builtin, load, write
from recsys_data_tests.support.feature_views import CLICKS, FEATURE_TS, feature, key, view_file


def test_the_shipped_views_are_sound_and_documented():
    contracts = load_contracts()
    views = {name: one for name, one in contracts.items() if one.kind is Kind.FEATURE_VIEW}
    assert {"item_engagement", "item_attributes", "user_activity", "user_attributes"} <= views.keys()
    assert {"user_item", "item_covisits", "session"} <= views.keys()
    for contract in views.values():
        assert contract.stage == "features"
        assert all(column.description for column in contract.columns), contract.name


def test_a_view_is_read_as_it_is_declared(tmp_path):
    view = load(tmp_path, CLICKS)["item_clicks"].view
    assert view is not None
    assert (view.entity, view.source) == (("item_id",), "interactions")
    clicks, events, *_ = view.features
    assert (clicks.function, clicks.filter, clicks.window) == ("count", "type = 'click'", Window("rolling", HOUR))
    assert events.window == Window("sawtooth", 7 * DAY)


def test_tiles_stand_beside_a_view_of_a_stream_and_not_beside_one_of_a_history():
    contracts = load_contracts()
    tiles = contracts["item_engagement_tiles"]
    assert (tiles.kind, tiles.base) == (Kind.FEATURE_TILES, "item_engagement")
    assert {"item_id", "tile_ts", "known_ts"} <= {column.name for column in tiles.columns}
    assert "item_attributes_tiles" not in contracts


def test_views_may_lie_in_a_subfolder(tmp_path):
    write(tmp_path / "contracts", CLICKS)
    (tmp_path / "contracts").rename(tmp_path / "features")
    assert "item_clicks" in load_contracts(tmp_path)


def test_what_is_personal_and_what_it_may_be_used_for_is_inherited(tmp_path):
    view = view_file(
        "about",
        key("user_id"),
        feature("born", source="user_profiles_history.birth_year"),
        feature("age", expression="year(request.timestamp) - born"),
        feature("status", "string", source="user_profiles_history.status"),
        of="user_profiles_history",
    )
    columns = {column.name: column for column in load(tmp_path, view)["about"].columns}
    assert columns["born"].permitted_use == columns["age"].permitted_use == ("personalisation",)
    assert columns["age"].classification == "sensitive"
    assert columns["age"].reads == (("user_profiles_history", "birth_year"),)
    assert columns["user_id"].classification == "personal"
    assert (columns["status"].permitted_use, columns["status"].classification) == ((), None)


def test_columns_that_may_not_be_used_together_are_refused(tmp_path):
    view = view_file(
        "about",
        key("user_id"),
        feature("gender", "string", source="user_profiles_history.gender"),
        feature("country", "string", source="user_profiles_history.country"),
        feature("both", "string", expression="gender || country"),
        of="user_profiles_history",
    )
    with pytest.raises(ContractError, match=r"about\.both: no use is permitted for all columns.*fairness"):
        load(tmp_path, view)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([feature("f", function="sum", source="prize")], r"v\.f: the column `prize` cannot be evaluated"),
        ([feature("f", function="sum", source="type")], r"v\.f: sum of type, which is VARCHAR; it takes a number"),
        ([feature("f", function="median", source="price")], r"the function median does not exist"),
        ([feature("f", "string", function="count")], r"declared as VARCHAR and computed as BIGINT"),
        ([feature("f", function="count", window={"rolling": "an hour"})], r"v\.f: window: 'an hour' is not a duration"),
        ([feature("f", function="count", window={"tumbling": "1h"})], r"the window tumbling does not exist"),
        ([feature("f", function="count", window=7)], r"v\.f: window: "),
        ([feature("f", function="count", delay="soon")], r"v\.f: delay: 'soon' is not a duration"),
        ([feature("f", "array", function="last_n", source="type", n="5")], r"v\.f: n: '5' is not a whole number"),
        ([feature("f", function="count", filter="kind = 'x'")], r"the filter `kind = 'x'` cannot be evaluated"),
        ([feature("f", filter="type = 'x'")], r"v\.f: nothing says how it is computed"),
        ([feature("f", source="item_catalog_history.prize")], r"v\.f: the column `prize` cannot be evaluated"),
        ([feature("f", source="nothing.price")], r"the source nothing does not exist"),
        ([feature("f", function="count", source="item_catalog_history.price")], r"has no time column"),
        ([feature("f", expression="g + 1"), feature("g", expression="f + 1")], r"need each other"),
        (
            [feature("f", function="count"), feature("g", function="count", source="contexts.event_id")],
            r"aggregates interactions and contexts",
        ),
        ([feature("f", function="count"), feature("F", function="count")], r"2 (features|times)"),
    ],
)
def test_a_mistake_in_a_view_is_refused_with_file_feature_and_what_to_do(tmp_path, columns, said):
    with pytest.raises(ContractError, match=said) as refused:
        load(tmp_path, view_file("v", key("item_id"), *columns))
    assert str(tmp_path / "v.odcs.yaml") in str(refused.value)


def test_an_entity_that_the_source_does_not_have_is_refused(tmp_path):
    with pytest.raises(ContractError, match="interactions has no column shop_id of the entity"):
        load(tmp_path, view_file("v", key("shop_id"), feature("f", function="count")))


def test_a_view_without_a_moment_is_refused(tmp_path):
    view = view_file("v", key("item_id"), feature("f", function="count"))
    view["schema"][0]["properties"].remove(FEATURE_TS)
    with pytest.raises(ContractError, match="exactly one required timestamp must be partitioned"):
        load(tmp_path, view)


def test_the_request_is_declared_with_logical_types(tmp_path):
    f = feature("f", "number", expression="request.basket / 2")
    view = load(
        tmp_path, view_file("v", key("item_id"), feature("n", function="count"), f, request={"basket": "number"})
    )
    assert view["v"].view.request == {"basket": "DOUBLE"}
    with pytest.raises(ContractError, match="request is"):
        load(tmp_path, view_file("v", key("item_id"), f, request={"basket": "money"}))


def test_a_dataset_with_the_name_of_tiles_is_refused(tmp_path):
    clash = view_file("item_clicks_tiles", key("item_id"), feature("n", function="count"))
    with pytest.raises(ContractError, match="item_clicks_tiles is made from the feature view item_clicks"):
        load(tmp_path, CLICKS, clash)


def test_a_view_of_the_package_is_left_out_where_its_source_was_replaced_by_another(tmp_path):
    catalogue = builtin("item_catalog")
    kept = ("item_id", "title", "price", "currency", "snapshot_date", "as_of")
    columns = catalogue["schema"][0]["properties"]
    catalogue["schema"][0]["properties"] = [column for column in columns if column["name"] in kept]
    catalogue["schema"][0]["quality"] = []
    contracts = load(tmp_path, catalogue)
    assert "item_attributes" not in contracts
    assert "item_engagement" in contracts


def test_a_view_of_ones_own_that_does_not_fit_a_replaced_source_is_refused(tmp_path):
    catalogue = builtin("item_catalog")
    own = view_file("v", key("item_id"), feature("f", source="item_catalog_history.prize"))
    with pytest.raises(ContractError, match="`prize` cannot be evaluated"):
        load(tmp_path, catalogue, own)
