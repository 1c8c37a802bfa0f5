import json
import shutil
from datetime import UTC, datetime

import pytest

from recsys_data.errors import RecsysDataError, UserError
from recsys_data.storage import commit
from recsys_data.training.registry import Version, aliases_of, artefact_folder, find, register, registered, set_alias
from recsys_data.training.train import load, train

OUTCOMES = """
    name: outcomes
    rows: outcomes
    labels: [{type: click, weight: 1}, {type: purchase, weight: 5}]
    maturity: 0s
    context: [device_type]
    split: {by: time, validation: 0.0, test: 0.3}
    models: {fading: {kind: popular, half_life_days: 1}}
    """


@pytest.fixture
def market(shop):
    shop.declare(OUTCOMES)
    shop.happen(*((n / 4, "click", f"u{n % 30}", f"i{n * n % 41}") for n in range(400)))
    return shop


def trained(market, kind="popular", **options):
    return train(market.open_lake(), market.settings, kind, "outcomes", **options)


def version(model="m", **given):
    fields = {
        "version": 0,
        "registered_at": datetime(2026, 1, 20, tzinfo=UTC),
        "kind": "popular",
        "parameters": {"half_life_days": None},
        "training_set_version": 1,
        "training_set_inputs": "ab",
        "metrics": {"nDCG@10": 0.5, "R@10": None},
        "artefact": "cd",
        "software": {"numpy": "2"},
    }
    return Version(model=model, **(fields | given))


def test_the_first_version_is_the_champion_and_is_measured_beside_simple_models(market):
    made = trained(market)
    assert list(made.measured) == ["popular", "random"]
    assert made.promoted and made.better is None
    first = made.measured["popular"]
    assert set(first.metrics) >= {"nDCG@10", "R@10", "CatalogCoverage@10", "MeanInvUserFreq@10"}
    assert {"visitor known", "item known"} <= set(first.segments["segment"].to_pylist())
    (found,) = registered(market.open_lake())
    assert (found.model, found.version, found.kind, found.metrics) == ("outcomes", 1, "popular", first.metrics)
    assert aliases_of(market.open_lake()) == {"outcomes": {"champion": 1}}


def test_a_version_that_is_not_better_challenges_the_champion(market):
    trained(market)
    made = trained(market, "random")
    assert not made.promoted
    assert made.better is not None and made.better[1] <= 0
    assert "champion 1" in made.measured
    assert aliases_of(market.open_lake())["outcomes"] == {"champion": 1, "challenger": 2}


def test_a_version_that_beats_the_champion_is_promoted(market):
    market.happen(*((90 + n / 10, "click", f"v{n}", f"i{n % 3}") for n in range(300)))
    trained(market, "random")
    made = trained(market)
    assert made.promoted and made.better is not None and made.better[1] > 0
    assert aliases_of(market.open_lake())["outcomes"] == {"champion": 2}


def test_a_loaded_champion_recommends_what_the_trained_model_did(market):
    trained(market)
    model, found = load(market.open_lake(), market.settings, "outcomes")
    again, _ = load(market.open_lake(), market.settings, "outcomes", "1")
    assert found.version == 1
    assert model.recommend(["u1", "x"], 3) == again.recommend(["u1", "x"], 3)


def test_declared_models_have_the_parameters_of_their_set(market):
    made = trained(market, "fading")
    assert (made.version.kind, made.version.parameters["half_life_days"]) == ("popular", 1)


def test_training_again_gives_the_same_files_under_one_name(market):
    one, two = trained(market).version, trained(market).version
    assert one.artefact == two.artefact and (one.version, two.version) == (1, 2)
    assert len(list((market.settings.training_dir / "models").iterdir())) == 1


def test_what_cannot_be_trained_is_refused(market):
    with pytest.raises(
        UserError, match="'itemknn' is not a model for outcomes, whose rows are outcomes; choose from popular"
    ):
        trained(market, "itemknn")
    with pytest.raises(UserError, match="'nothing' is not a training set"):
        train(market.open_lake(), market.settings, "popular", "nothing")
    market.declare(OUTCOMES, name="whole", split={"by": "none"})
    with pytest.raises(UserError, match="whole 1 has no test rows; it is split by none. .*training-set show whole"):
        train(market.open_lake(), market.settings, "popular", "whole")


def test_a_ranker_learns_from_impressions_and_is_measured_beside_the_order_that_was_shown(shop):
    pytest.importorskip("lightgbm")
    shop.declare(features=["item_clicks"])
    happened = []
    for page in range(120):
        at, user, row = page * 0.5, f"u{page % 9}", {"list_id": f"l{page}", "session_id": f"s{page}"}
        for n in range(6):
            happened.append((at + n / 1000, "impression", user, f"i{n}", row | {"position": n + 1}))
        # The last item of the list is the one that everybody likes.
        happened.append((at + 0.1, "click", user, "i5", row))
    shop.happen(*happened)
    made = train(shop.open_lake(), shop.settings, "ranker", "clicks", parameters={"min_rows": 1, "trees": 20})
    assert list(made.measured) == ["ranker", "as shown", "random"]
    assert made.measured["ranker"].metrics["RR@10"] == 1
    # A border of the split may lie within a list.
    assert 1 / 6 <= (made.measured["as shown"].metrics["RR@10"] or 0) < 0.2
    model, _ = load(shop.open_lake(), shop.settings, "clicks")
    assert model.importance()["feature"].to_pylist()[0].startswith("item_clicks__")
    with pytest.raises(UserError, match="'popular' is not a model for clicks, whose rows are impressions"):
        train(shop.open_lake(), shop.settings, "popular", "clicks")


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda folder: next(folder.iterdir()).write_bytes(b"x")])
def test_files_that_are_gone_or_changed_are_named_and_training_again_restores_them(market, damage):
    made = trained(market, "random")
    damage(artefact_folder(market.settings, made.version.artefact))
    with pytest.raises(UserError, match="The files of outcomes 1 (are gone|have changed): .* or train again"):
        load(market.open_lake(), market.settings, "outcomes")
    assert trained(market, "random", promote=False).version.artefact == made.version.artefact
    load(market.open_lake(), market.settings, "outcomes", "1")
    assert list((market.settings.training_dir / "staging").iterdir()) == []


def test_a_champion_without_files_gives_way_to_the_next_version(market):
    shutil.rmtree(artefact_folder(market.settings, trained(market).version.artefact))
    steps = []
    made = trained(market, "random", on_progress=steps.append)
    assert made.promoted and made.better is None
    assert any("comparing with no champion: The files of outcomes 1 are gone" in step for step in steps)


def test_a_version_is_compared_with_the_champion_that_it_replaces(market, monkeypatch):
    """Another process registers a champion after the comparison: the comparison is made again."""
    from recsys_data.training import train as module

    registering, seen = module.register, []

    def late(lake, version, alias, over):
        if not seen:
            seen.append(over)
            trained(market)
        return registering(lake, version, alias, over)

    monkeypatch.setattr(module, "register", late)
    made = trained(market, "random")
    assert not made.promoted and "champion 1" in made.measured
    assert [one.kind for one in registered(market.open_lake())] == ["popular", "random"]
    assert aliases_of(market.open_lake()) == {"outcomes": {"champion": 1, "challenger": 2}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda path: path.unlink(), "has no train.parquet any more"), (lambda path: path.write_bytes(b""), "is damaged")],
)
def test_files_of_a_set_that_are_not_those_of_its_manifest_are_not_trained_on(market, damage, message):
    damage(trained(market).built.folder / "train.parquet")
    with pytest.raises(RecsysDataError, match=f"{message}.*Run: recsys-data training-set rebuild outcomes --version 1"):
        trained(market)


def test_a_version_is_trained_on_as_it_was_declared(market):
    trained(market)
    market.declare(OUTCOMES, rows="impressions", maturity="1d", models={})
    assert trained(market).version.kind == "popular"
    with pytest.raises(UserError, match="'ranker' is not a model for outcomes, whose rows are outcomes"):
        trained(market, "ranker")


def test_versions_are_numbered_by_model(shop):
    lake = shop.open_lake()
    assert [register(lake, version(name)).version for name in ("m", "m", "n")] == [1, 1, 1]
    assert register(lake, version(artefact="ef")).version == 2
    assert [(one.model, one.version) for one in registered(shop.open_lake())] == [("m", 1), ("m", 2), ("n", 1)]


def test_an_alias_names_a_version_that_is_there(shop):
    lake = shop.open_lake()
    for number in range(3):
        register(lake, version(artefact=str(number)), "champion" if not number else "challenger")
    assert find(lake, "m").version == 1
    assert find(lake, "m", "challenger").version == 3
    set_alias(lake, "m", 3, "champion")
    assert aliases_of(lake) == {"m": {"champion": 3}}
    with pytest.raises(UserError, match="m has no version 9; registered are 1, 2, 3"):
        set_alias(lake, "m", 9, "champion")
    with pytest.raises(UserError, match="none has no version champion; registered are none"):
        find(lake, "none")


def test_a_commit_that_the_catalog_took_but_reported_as_failed_registers_once(shop, monkeypatch):
    from pyiceberg.exceptions import CommitFailedException

    swap, calls = commit.swap, []

    def lossy(table, change):
        swap(table, change)
        calls.append(1)
        if len(calls) == 1:
            raise CommitFailedException("the answer was lost")

    shop.open_lake().table("models")
    monkeypatch.setattr(commit, "swap", lossy)
    assert register(shop.open_lake(), version(), "champion").version == 1
    assert len(registered(shop.open_lake())) == 1
    assert json.dumps(aliases_of(shop.open_lake())) == '{"m": {"champion": 1}}'
