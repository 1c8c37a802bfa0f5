"""Whatever a consumer is interrupted by, the lake ends as if nothing had happened."""

import random
import shutil
from typing import Any

import pytest

from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.crashes import PLACES, Crash, Crashes
from recsys_data_tests.support.platform import Platform, identify, view


def delivery(rng: random.Random, first: int, delivered: list[bytes]) -> bytes:
    """The next line: a good event on some day, a statement, something delivered before, or a reject."""
    kind, name = rng.random(), f"{first}-{len(delivered)}"
    if kind < 0.25 and delivered:
        return rng.choice(delivered)
    if kind < 0.35:
        return rng.choice([b"", b"{", view("", day=2), view(name, item_id=None)])
    if kind < 0.45:
        return identify(name, traits={"n": name}, context={"page": "p"})
    context = {"page": "p", "ip": "2001:db8::1"} if rng.random() < 0.5 else None
    return view(name, day=rng.randrange(1, 5), context=context, foo=name)


@pytest.mark.parametrize("seed", [1])
def test_a_crash_at_any_step_leaves_the_same_lake(
    make_platform: MakePlatform, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    crashes = Crashes(monkeypatch)
    platform, undisturbed = make_platform(), make_platform()
    delivered: list[bytes] = []
    places = rng.sample(PLACES, len(PLACES))
    for number, place in enumerate(places):
        for writer in (0, 1):
            lines = []
            for _ in range(4):
                lines.append(delivery(rng, number, delivered))
                delivered.append(lines[-1])
            for each in (platform, undisturbed):
                each.append(lines, writer)
        limits = {"slice_bytes": rng.choice((400, 1 << 20)), "commit_rows": rng.choice((4, 1000))}
        once = "persist" in place or "intent" in place
        crashes.arm(place, 1 if once else rng.randrange(1, 5))
        _crash(platform, place, **limits)
        crashes.disarm()
        if rng.random() < 0.3:
            shutil.rmtree(platform.settings.data_dir / "ingest")
    platform.consume()
    platform.assert_whole()
    undisturbed.consume()
    assert platform.counts() == undisturbed.counts()
    assert platform.content() == undisturbed.content()


def _crash(platform: Platform, place: str, **limits: Any) -> None:
    """Consume until it crashes there; whatever a reader sees then is sound, for no event stands there twice."""
    try:
        platform.consume(**limits)
    except Crash as crash:
        assert str(crash) == place
        for name in ("interactions", "identities", "contexts"):
            ids = platform.ids(name)
            assert len(set(ids)) == len(ids)
    else:
        assert place in ("before build", "after build"), "the consumer did not come by"
