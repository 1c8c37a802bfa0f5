"""What became of recommendations, joined by their ids."""

import json

import pytest
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.serving.outcomes import outcomes, wilson
from recsys_data_tests.serving.conftest import items_of


def test_outcomes_join_impressions_by_recommendation_and_item(shop, serve):
    client = serve(shop)
    first, second = client.recommend(user_id="u1", n=4), client.recommend(user_id="u2", n=4)
    client.stop()
    shown = {"recommendation_id": first["recommendation_id"]}
    a, b, *_ = items_of(first)
    shop.happen(
        (1, "click", "u1", a, shown),
        (2, "click", "u1", a, shown),
        (3, "purchase", "u1", a, shown | {"value": 20, "order_id": "1"}),
        (3, "click", "u1", b, shown),
        # Neither is an outcome of what was shown.
        (4, "click", "u1", "i39", {"recommendation_id": "another"}),
        (4, "purchase", "u2", items_of(second)[0], {"value": 7, "order_id": "2"}),
    )
    (found,) = outcomes(shop.open_lake())
    assert (found.scenario, found.model, found.variant) == ("home", "next_items/1", None)
    assert (found.answers, found.shown, found.clicked, found.bought, found.revenue) == (2, 8, 2, 1, 20.0)
    assert found.click_rate == wilson(2, 8) and found.purchase_rate == wilson(1, 8)


def test_the_command_shows_models_with_intervals(shop, serve, monkeypatch):
    client = serve(shop)
    client.recommend(user_id="u1", n=4)
    client.stop()
    shop.consume()
    monkeypatch.setenv("RECSYS_DATA_DIR", shop.settings.dir)
    result = CliRunner().invoke(cli, ["recommendations"])
    assert result.exit_code == 0, result.output
    assert "next_items/1" in result.stdout and "0.00% (0.00%-48.99%)" in result.stdout
    (row,) = json.loads(CliRunner().invoke(cli, ["recommendations", "--json"]).stdout)
    assert row["shown"] == 4 and row["click_rate"]["high"] == pytest.approx(0.4899, abs=1e-4)
    later = CliRunner().invoke(cli, ["recommendations", "--since", "2100-01-01"])
    assert later.stdout.startswith("Nothing was recommended")


@pytest.mark.parametrize(("count", "of"), [(0, 10), (10, 10), (1, 7), (40, 1000)])
def test_intervals_hold_the_share(count, of):
    share = wilson(count, of)
    assert 0 <= share.low <= share.value <= share.high <= 1
    # Wilson's limits are where the test of the share is just not rejected.
    for limit in (share.low, share.high):
        if 0 < limit < 1:
            assert abs(share.value - limit) == pytest.approx(1.959963984540054 * (limit * (1 - limit) / of) ** 0.5)
