import numpy as np
import pytest

from recsys_data.contracts import load_contracts
from recsys_data.contracts.features.view import HOUR, Feature, FeatureView
from recsys_data.errors import UserError
from recsys_data.features import embeddings
from recsys_data.features.point_in_time import join
from recsys_data_tests.features.tables import RELATIONS, SOURCES, connect, fill, spine_of
from recsys_data_tests.features.test_point_in_time import START

VIEW = FeatureView(
    "text",
    ("item_id",),
    "prices",
    (
        Feature("about", column="'price ' || price::INTEGER", embedding="wordllama"),
        Feature("before", column="'price ' || price::INTEGER", embedding="wordllama", delay=HOUR),
        Feature("dimensions", expression="len(about)"),
    ),
)
PRICES = [
    {"item_id": item, "price": price, "valid_from": START + a * HOUR, "valid_to": b and START + b * HOUR}
    for item, price, a, b in (
        ("i1", 10.0, 0, 2),
        ("i1", 20.0, 2, None),
        ("i2", 10.0, 0, None),
        ("i3", None, 0, None),
        ("i9", 99.0, 0, None),
    )
]
ASKED = [("i1", 1), ("i1", 2), ("i1", -1), ("i2", 5), ("i3", 1), ("i1", 1)]


@pytest.fixture
def connection():
    with connect() as one:
        fill(one, [], prices=PRICES)
        yield one


def joined(connection):
    spine = spine_of(connection, [(None, item, START + hours * HOUR) for item, hours in ASKED])
    return [row[-4:] for row in join(connection, spine, [VIEW], SOURCES, RELATIONS).fetchall()]


@pytest.fixture
def batches(monkeypatch):
    """Texts as they come to a model that returns the number in each and its length."""
    found = []

    def embed(texts):
        found.append(sorted(texts))
        return np.array([[float(text.split()[1]), len(text)] for text in texts], np.float32)

    monkeypatch.setattr(embeddings, "_models", lambda: {"wordllama": embed})
    monkeypatch.setattr(embeddings, "find_spec", lambda name: name)
    return found


def test_texts_are_embedded_as_they_were_at_the_moment(connection, batches):
    assert joined(connection) == [
        ([10.0, 8.0], [10.0, 8.0], 2, True),
        ([20.0, 8.0], [10.0, 8.0], 2, True),
        (None, None, None, False),
        ([10.0, 8.0], [10.0, 8.0], 2, True),
        (None, None, None, True),
        ([10.0, 8.0], [10.0, 8.0], 2, True),
    ]


def test_each_text_of_the_asked_entities_is_embedded_once(connection, batches, monkeypatch):
    joined(connection)
    assert batches == [["price 10", "price 20"]] * 2
    batches.clear()
    monkeypatch.setattr(embeddings, "BATCH", 1)
    joined(connection)
    assert sorted(batches) == [["price 10"], ["price 10"], ["price 20"], ["price 20"]]


def test_without_the_extra_contracts_load_and_a_join_names_it(connection, monkeypatch):
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    shipped = load_contracts()["item_text"].view
    assert shipped
    assert "Install recsys-data[embeddings]" in (embeddings.missing_extra(shipped) or "")
    with pytest.raises(UserError, match=r"text embeds texts with wordllama\. Install recsys-data\[embeddings\]"):
        joined(connection)


@pytest.mark.integration
def test_the_model_places_like_texts_near_each_other():
    a, b, c = embeddings._models()["wordllama"](["red shoes for women", "womens red sneakers", "garden hose, 20 m"])
    assert a.shape == (256,)
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-3)
    assert a @ b > a @ c
