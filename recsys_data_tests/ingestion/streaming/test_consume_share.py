"""Consumers of disjoint log partitions share nothing but the catalog, and the lake is as one consumer would make it."""

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming import consumer
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.consumer_lease import hold_lease
from recsys_data.ingestion.streaming.decoding.event_sql import EventSession
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data.settings import Settings
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.crashes import PLACES, Crash, Crashes
from recsys_data_tests.support.platform import Platform, identify, view

SHARES = ("1/2", "2/2")


def run(platform: Platform, share: str, rows: int = 1000, folder: Path | None = None) -> None:
    """A consumer of a share, as on a machine of its own, until nothing of it waits."""
    folder = folder or platform.settings.data_dir.with_name(f"{platform.settings.data_dir.name}-{share[0]}")
    settings = msgspec.structs.replace(platform.settings, consume_share=share, dir=str(folder))
    limits = ConsumerLimits(threads=1, commit_rows=rows, slice_bytes=400, commit_seconds=0)
    list(consume(platform.log, platform.open_lake(), settings, Until(), limits))


def lines_of_user(user: int, number: int, rng: random.Random, delivered: list[bytes]) -> list[bytes]:
    """Deliveries about one user: some anew, some again, some that are none."""
    lines = []
    for step in range(6):
        name = f"{user}-{number}-{step}"
        kind = rng.random()
        if kind < 0.3 and delivered:
            lines.append(rng.choice(delivered))
        elif kind < 0.4:
            lines.append(view(name, item_id=None))
        else:
            lines.append((identify if kind < 0.5 else view)(name, user_id=f"u{user}"))
        delivered.append(lines[-1])
    return lines


def test_two_consumers_at_once_store_what_one_would(
    make_platform: MakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)
    # The fixture's sessions are too few for two consumers at once.
    monkeypatch.setattr(consumer, "EventSession", EventSession)
    platform, alone = make_platform(), make_platform()
    for user in (0, 1):
        delivered: list[bytes] = []
        for number in range(6):
            lines = lines_of_user(user, number, rng, delivered)
            platform.append(lines, user)
            alone.append(lines, user)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda share: run(platform, share, rows=5), SHARES))
    alone.consume()
    platform.assert_whole()
    assert platform.counts() == alone.counts()
    assert platform.content() == alone.content()
    assert reconcile_lake(platform.lake, platform.settings).faults == ()


@pytest.mark.parametrize(
    ("seed", "places"),
    [(1, 6), *(pytest.param(seed, len(PLACES), marks=pytest.mark.faults) for seed in range(2, 6))],
)
def test_a_crash_of_one_consumer_at_any_step_leaves_the_same_lake(
    make_platform: MakePlatform, monkeypatch: pytest.MonkeyPatch, seed: int, places: int
) -> None:
    rng = random.Random(seed)
    crashes = Crashes(monkeypatch)
    platform, alone = make_platform(), make_platform()
    delivered: tuple[list[bytes], list[bytes]] = ([], [])
    for number, place in enumerate(rng.sample(PLACES, places)):
        for user in (0, 1):
            lines = lines_of_user(user, number, rng, delivered[user])
            platform.append(lines, user)
            alone.append(lines, user)
        crashes.arm(place, 1 if "persist" in place or "intent" in place else rng.randrange(1, 5))
        try:
            run(platform, SHARES[0], rng.choice((4, 1000)))
        except Crash as crash:
            assert str(crash) == place
        crashes.disarm()
        run(platform, SHARES[1], rng.choice((4, 1000)))
        if rng.random() < 0.3:
            shutil.rmtree(f"{platform.settings.data_dir}-1", ignore_errors=True)
    run(platform, SHARES[0])
    alone.consume()
    platform.assert_whole()
    assert platform.counts() == alone.counts()
    assert platform.content() == alone.content()


def test_partitions_can_change_hands(platform: Platform) -> None:
    """Whoever reads a partition next knows what was stored from any."""
    first, second = [view("a"), view("b")], [view("c")]
    platform.append(first, 0)
    platform.append(second, 1)
    for share in SHARES:
        run(platform, share)
    platform.append([*first, *second, view("d")], 0)
    run(platform, "1/1", folder=platform.settings.data_dir)
    platform.append([*first, *second, view("d")], 1)
    for share in SHARES:
        run(platform, share)
    assert platform.ids() == ["a", "b", "c", "d"]
    assert platform.counts() == (11, 4, 7, 0)
    platform.assert_whole()


def test_two_consumers_of_one_machine_have_a_lease_each(tmp_path: Path) -> None:
    first, second = (Settings(dir=str(tmp_path), consume_share=share) for share in SHARES)
    with hold_lease(first, 0), hold_lease(second, 0):
        assert first.dedup_index_dir != second.dedup_index_dir


def test_a_dataset_that_reads_the_log_again_needs_one_consumer(platform: Platform, make_platform: MakePlatform) -> None:
    platform.append([view("a", context={"page": "p"})])
    given = {name: contract for name, contract in platform.contracts.items() if name != "contexts"}
    before = make_platform(platform.settings.data_dir, given)
    before.consume()
    with pytest.raises(UserError, match="RECSYS_DATA_CONSUME_SHARE=1/1"):
        for share in SHARES:
            run(platform, share)
    platform.consume()
    for share in SHARES:
        run(platform, share)
    platform.assert_whole()


@pytest.mark.parametrize("share", ["0/1", "2/1", "1", "1/0", "a/b"])
def test_share_that_makes_no_sense_is_refused(share: str) -> None:
    with pytest.raises(UserError, match="RECSYS_DATA_CONSUME_SHARE"):
        Settings.from_env({"RECSYS_DATA_CONSUME_SHARE": share})
