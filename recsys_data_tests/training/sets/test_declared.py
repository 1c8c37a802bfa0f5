import json

import pytest

from recsys_data.contracts import load_contracts
from recsys_data.errors import ContractError
from recsys_data.training.sets.declared import check_set, load_sets

GOOD = {"name": "mine", "rows": "outcomes", "labels": [{"type": "click"}]}


@pytest.fixture
def load(tmp_path):
    folder = tmp_path / "training_sets"
    folder.mkdir()

    def load(**changes):
        document = {key: value for key, value in (GOOD | changes).items() if value is not None}
        (folder / "mine.yaml").write_text(json.dumps(document))
        return load_sets(tmp_path)[document["name"]]

    return load


def test_a_users_set_stands_beside_those_of_the_package_and_replaces_one_of_its_name(load, tmp_path):
    one, path = load()
    assert (one.name, path.parent, one.split.by) == ("mine", tmp_path / "training_sets", "time")
    (tmp_path / "training_sets" / "own.yaml").write_text(json.dumps(GOOD | {"name": "next_items", "seed": 5}))
    assert load_sets(tmp_path)["next_items"][0].seed == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Mine!"}, "name is 'Mine!'; expected lower-case letters"),
        ({"rows": "pages"}, r"Invalid enum value 'pages' - at `\$.rows`"),
        ({"labels": None}, "missing required field `labels`"),
        ({"labels": []}, "Expected `array` of length >= 1"),
        ({"lables": 1}, "contains unknown field `lables`"),
        ({"labels": [{"type": "click"}, {"type": "click"}]}, "click is listed twice"),
        ({"rows": "impressions", "labels": [{"type": "impression"}]}, "an impression is a row, not an outcome"),
        ({"window": "soon"}, "window: 'soon' is not a duration"),
        ({"rows": "impressions", "window": "3d", "maturity": "1d"}, "maturity is 1d, and outcomes count for 3d"),
        ({"split": {"validation": 0.5, "test": 0.5}}, "nothing to train on"),
        ({"split": {"by": "visitor", "test": "2d"}}, "a split by visitor takes a share"),
        ({"split": {"by": "visitor", "gap": "2d"}}, "split.gap needs a split by time"),
        ({"split": {"test": "2 days ago"}}, "split.test: '2 days ago' is not a duration"),
        ({"negatives": {"impressions": 2}}, "Expected `float` <= 1.0"),
        ({"labels": [{"type": "click", "weight": 0}]}, "weight of click is 0.0; expected a number that is not 0"),
        (
            {"labels": [{"type": "click", "refunds": "negate"}], "maturity": "0s"},
            "click is negated .* maturity above 0",
        ),
        ({"context": ["device_type", "device_type"]}, "context: device_type is listed twice"),
        ({"features": ["user_item", "user_item"]}, "features: user_item is listed twice"),
        ({"maturity": "99999999999d"}, "maturity: '99999999999d' is longer than 36,500 days"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_with_file_and_field(load, changes, message):
    with pytest.raises(ContractError, match=rf"mine\.yaml: .*{message}"):
        load(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": ["item_sales"]}, "features: 'item_sales' is not a feature view; choose from .*item_engagement"),
        ({"context": ["mood"]}, "context: mood is not a column of contexts"),
        (
            {"labels": [{"type": "rating", "weight": "stars - 2"}]},
            "weight of rating: 'stars - 2' cannot be used: .*stars",
        ),
        ({"labels": [{"type": "rating", "weight": "read_text('/etc/passwd')"}]}, "weight of rating: .* cannot be used"),
        ({"labels": [{"type": "rating", "weight": "(SELECT max(rating) FROM interactions)"}]}, "cannot be used"),
        ({"name": "lake_upkeep"}, "name: lake_upkeep is the name of another asset"),
        ({"labels": [{"type": "clik"}]}, "labels: 'clik' is not a type of event; choose from impression, view, click"),
        (
            {"labels": [{"type": "click", "weight": "item_id"}]},
            "weight of click: 'item_id' is VARCHAR; expected a number",
        ),
        ({"labels": [{"type": "click", "weight": "1 + random()"}]}, "random has another value each time"),
        ({"labels": [{"type": "click", "weight": "epoch(age(event_ts))"}]}, "age of one moment depends on when"),
        ({"labels": [{"type": "click", "weight": "epoch(current_timestamp)"}]}, "current_timestamp has another value"),
        ({"context": ["session_id"]}, "context: rows have their own column session_id"),
        ({"bots": "pageviews > 3"}, "bots: 'pageviews > 3' cannot be used"),
        ({"bots": "events"}, "bots: 'events' is BIGINT; expected a condition"),
    ],
)
def test_a_declaration_that_does_not_fit_the_contracts_is_refused(load, changes, message):
    one, path = load(**changes)
    with pytest.raises(ContractError, match=rf"mine\.yaml: .*{message}"):
        check_set(path, one, load_contracts())


def test_a_file_of_another_ending_is_not_passed_over(tmp_path):
    (tmp_path / "training_sets").mkdir()
    (tmp_path / "training_sets" / "mine.yml").write_text(json.dumps(GOOD))
    with pytest.raises(ContractError, match=r"mine\.yml: only files that end with \.yaml are read. Rename it"):
        load_sets(tmp_path)


def test_a_weight_that_is_not_a_number_is_refused(tmp_path):
    (tmp_path / "training_sets").mkdir()
    text = "name: mine\nrows: outcomes\nlabels: [{type: click, weight: .nan}]\n"
    (tmp_path / "training_sets" / "mine.yaml").write_text(text)
    with pytest.raises(ContractError, match=r"mine\.yaml: labels: weight of click is nan; expected a number"):
        load_sets(tmp_path)


def test_a_rule_for_browsers_needs_the_dataset_that_has_them(load):
    one, path = load(bots="user_agent LIKE '%bot%'")
    check_set(path, one, load_contracts())
    contracts = {name: it for name, it in load_contracts().items() if name != "contexts"}
    with pytest.raises(ContractError, match=r"bots: user_agent is a column of contexts, which no contract has"):
        check_set(path, one, contracts)


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path):
    (tmp_path / "training_sets").mkdir()
    (tmp_path / "training_sets" / "bad.yaml").write_text("name: [1\n")
    with pytest.raises(ContractError, match=r"bad.yaml: is not valid YAML at line 2"):
        load_sets(tmp_path)
