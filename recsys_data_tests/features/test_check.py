import pytest

from recsys_data.contracts.features.check import check, resolve
from recsys_data.contracts.features.view import HOUR, Feature, FeatureView, Window, parse_duration, parse_window
from recsys_data.errors import UserError
from recsys_data_tests.features.tables import SOURCES

ROLLING = Window("rolling", HOUR)


def problems(*features, entity=("item_id",), source="events", request=None):
    return check(FeatureView("v", entity, source, features, request or {}), SOURCES)


def test_a_sound_view_has_no_problems_and_known_types():
    view = FeatureView(
        "v",
        ("item_id",),
        "events",
        (
            Feature("clicks", "count", filter="type = 'click'", window=ROLLING),
            Feature("revenue", "sum", "value * quantity", window=Window("sawtooth", 7 * 24 * HOUR)),
            Feature("pieces", "sum", "quantity"),
            Feature("recent", "last_n", "user_id", n=5),
            Feature("price", column="price", source="prices"),
            Feature("share", expression="clicks / nullif(pieces, 0)"),
            Feature("rounded", expression="round(share * request.factor, 2)"),
            Feature("age", expression="date_diff('day', price_since, request.timestamp)"),
            Feature("price_since", column="valid_from", source="prices"),
        ),
        {"factor": "DOUBLE"},
    )
    assert check(view, SOURCES) == []
    resolved = resolve(view, SOURCES)
    assert resolved.types["clicks"] == "BIGINT"
    assert resolved.types["revenue"] == "DOUBLE"
    assert resolved.types["pieces"] == "BIGINT"
    assert resolved.types["recent"] == "VARCHAR[]"
    assert resolved.types["rounded"] == "DOUBLE"
    assert resolved.expressions.index("share") < resolved.expressions.index("rounded")


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (Feature("f", "sum", "vlaue"), "cannot be evaluated"),
        (Feature("f", "sum", "type"), "sum of type, which is VARCHAR; it takes a number"),
        (Feature("f", "sum"), "sum has no column"),
        (Feature("f", "median", "value"), "the function median does not exist; choose one of count"),
        (Feature("f", "count", window=Window("tumbling", HOUR)), "the window tumbling does not exist"),
        (Feature("f", "count", window=Window("rolling")), "has the size 0"),
        (Feature("f", "count", window=Window("lifetime", 1)), "has the size 1"),
        (Feature("f", "last_n", "type"), "last_n has no n"),
        (Feature("f", "last_n", "type", n=0), "n is 0"),
        (Feature("f", "decayed_sum", "value"), "decayed_sum has no half_life"),
        (Feature("f", "count", filter="type"), "the filter `type` is VARCHAR"),
        (Feature("f", "count", filter="type = getenv('HOME')"), "is refused"),
        (Feature("f", "max", "(SELECT max(x) FROM secrets)"), "is refused"),
        (Feature("f", "count", filter="count(*) > 1"), "cannot be evaluated"),
        (Feature("f", "count", delay=-1), "must not be negative"),
        (Feature("f", "sum", "value", scale=20), "the scale is 20"),
        (Feature("f", "count", source="nosuch"), "the source nosuch does not exist; choose one of events"),
        (Feature("f", "count", source="prices"), "prices has no time column"),
        (Feature("f", column="value"), "events is not a history"),
        (Feature("f", column="price * 2", source="prices"), "is not a column of prices"),
        (Feature("f", column="price", source="prices", window=ROLLING), "has no window or filter"),
        (Feature("f", "median", "price", source="prices"), "needs a rolling window and takes no filter"),
        (Feature("f", "avg", "item_id", source="prices", window=ROLLING), "which is VARCHAR; it takes a number"),
        (Feature("f", "max", "price * 2", source="prices", window=ROLLING), "take a column: it has"),
        (Feature("f", column="price", source="prices", embedding="wordllama"), "which is DOUBLE; it takes a text"),
        (Feature("f", column="item_id", source="prices", embedding="gpt"), "the embedding gpt does not exist"),
        (Feature("f", column="type", embedding="wordllama"), "events is not a history"),
        (Feature("f", "last", "type", embedding="wordllama"), "a function and an embedding; keep one"),
        (Feature("f"), "neither a function nor a column nor an expression"),
        (Feature("f", expression="nosuch + 1"), "cannot be evaluated"),
        (Feature("f", expression="request.nosuch"), "it may use the features"),
        (Feature("f", expression="1 +"), "cannot be read"),
        (Feature("f", "count", expression="1"), "keep one"),
        (Feature("f", expression="f + 1"), "need each other"),
        (Feature("known", "count"), "the name is taken"),
    ],
    ids=lambda one: one.replace(" ", "_")[:40] if isinstance(one, str) else "",
)
def test_each_mistake_gives_one_sentence_that_names_the_feature(feature, said):
    (problem,) = problems(feature)
    assert problem.startswith("v")
    assert feature.name in problem
    assert said in problem
    assert problem.endswith(".")


def test_names_must_be_unique_however_they_are_spelled():
    (problem,) = problems(Feature("clicks", "count"), Feature("Clicks", "count"))
    assert "2 features have this name" in problem


def test_a_cycle_names_its_members():
    (problem,) = problems(Feature("a", expression="b"), Feature("b", expression="c"), Feature("c", expression="a"))
    assert "a, b, c need each other" in problem


def test_a_source_needs_the_keys_of_the_entity():
    (problem,) = problems(Feature("price", column="price", source="prices"), entity=("user_id",), source="prices")
    assert "prices has no column user_id of the entity" in problem


def test_an_unsound_view_is_not_computed():
    with pytest.raises(UserError, match=r"The feature view v cannot be computed: v\.f"):
        resolve(FeatureView("v", ("item_id",), "events", (Feature("f", "sum"),)), SOURCES)


@pytest.mark.parametrize("text", ["", "1", "h", "1 hour", "1.5h", "-1h"])
def test_a_duration_that_is_not_one_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_windows_are_written_as_a_word_or_a_mapping():
    assert parse_window("lifetime") == Window("lifetime", 0)
    assert parse_window({"sawtooth": "7d"}) == Window("sawtooth", 7 * 24 * HOUR)
    with pytest.raises(ValueError, match="expected one kind"):
        parse_window({"rolling": "1h", "sawtooth": "1d"})
