"""What became of recommendations, joined by their ids."""

import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.serving.bots import CRAWLERS
from recsys_data.serving.outcomes import design_effect, outcomes, wilson
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


def test_what_is_shown_to_bots_is_not_counted(shop, serve):
    client = serve(shop)
    answers = {user: client.recommend(user_id=user, n=3) for user in ("u1", "u2", "u3")}
    client.stop()
    clicked = [
        (0, "click", user, items_of(answer)[0], {"recommendation_id": answer["recommendation_id"]} | now(user))
        for user, answer in answers.items()
    ]
    # One says so, one is too fast.
    agent = {"context": {"user_agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}}
    crawl = (0, "page_view", "u2", None, now("u2") | agent)
    many = [(0, "click", "u3", "i1", now("u3")) for _ in range(501)]
    shop.happen(*clicked, crawl, *many)
    (found,) = outcomes(shop.open_lake())
    assert (found.answers, found.shown, found.clicked, found.visitors, found.shown_to_bots) == (1, 3, 1, 1, 6)


def now(user):
    return {"event_ts": datetime.now(UTC).isoformat().replace("+00:00", "Z"), "received_at": None}


@pytest.mark.parametrize(
    ("agent", "crawler"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0.0.0 Safari/537.36", True),
        ("facebookexternalhit/1.1", True),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36", False),
        ("Mozilla/5.0 (Linux; Android 11; CUBOT X50) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36", False),
        ("okhttp/4.9.3", False),
        ("python-requests/2.31", False),
    ],
)
def test_crawlers_are_known_by_their_user_agent(agent, crawler):
    assert bool(re.search(CRAWLERS, agent, re.IGNORECASE)) is crawler


def test_intervals_hold_where_visitors_differ():
    rng = np.random.default_rng(3)
    rate, visitors, lists = 0.1, 200, 20
    held = {"clustered": 0, "independent": 0}
    runs = 400
    for _ in range(runs):
        shown = rng.integers(1, 2 * lists, visitors)
        clicked = rng.binomial(shown, rng.beta(1, 9, visitors))
        count, of = int(clicked.sum()), int(shown.sum())
        spread = float(((clicked - count / of * shown) ** 2).sum()) * visitors / (visitors - 1)
        for name, share in {
            "clustered": wilson(count, of, design_effect(spread, count / of, of)),
            "independent": wilson(count, of),
        }.items():
            held[name] += share.low <= rate <= share.high
    assert held["clustered"] >= 0.93 * runs > held["independent"]
