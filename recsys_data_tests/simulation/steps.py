"""What can happen in a schedule, by name. Each takes the world and its own random numbers."""

import json
import random
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from recsys_data_tests.simulation import product
from recsys_data_tests.simulation.check import dead_letter_ids
from recsys_data_tests.simulation.traffic import Event, make
from recsys_data_tests.simulation.variants import RETENTION
from recsys_data_tests.simulation.world import LONGEST, SHORTER, Handler, World

SNAPSHOTS = {"user_profiles": "user_id", "item_catalog": "item_id"}
HOURS = 3600.0


def append(world: World, rng: random.Random) -> None:
    """Clients send new events, and each request is acknowledged or not."""
    number = len(world.truth.events)
    for _ in range(rng.randrange(1, 4)):
        events = [make(rng, f"{number}.{rng.randrange(10**6)}.{n}", _now()) for n in range(rng.randrange(1, 6))]
        _send(world, events)


def redeliver(world: World, rng: random.Random) -> None:
    """Clients send again what they sent before."""
    if known := sorted(world.truth.events):
        _send(world, [world.truth.events[name] for name in rng.choices(known, k=rng.randrange(1, 6))])


def _send(world: World, events: Sequence[Event]) -> None:
    world.truth.events |= {one.id: one for one in events}
    where = world.collecting().append([one.line for one in events])
    if where:
        world.truth.append(events, where)


def consume(world: World, rng: random.Random) -> None:
    log, lake = world.open()
    product.consume(log, lake, world.settings)


def replay(world: World, rng: random.Random) -> None:
    log, lake = world.open()
    product.replay_dead_letters(log, lake, world.settings)


def discard(world: World, rng: random.Random) -> None:
    world.truth.given_up |= dead_letter_ids(world)
    product.discard_dead_letters(world.open_lake(), world.settings)


def edit_query_rule(world: World, rng: random.Random) -> None:
    world.change(world.variant._replace(strict_query=not world.variant.strict_query))


def edit_page_rule(world: World, rng: random.Random) -> None:
    world.change(world.variant._replace(strict_page=not world.variant.strict_page))


def edit_datasets(world: World, rng: random.Random) -> None:
    world.change(world.variant._replace(vouchers=not world.variant.vouchers))


def edit_limit(world: World, rng: random.Random) -> None:
    world.max_event_bytes = LONGEST if world.max_event_bytes == SHORTER else SHORTER


def snapshot(world: World, rng: random.Random) -> None:
    """A day's state is delivered, and taken."""
    name, key = rng.choice(sorted(SNAPSHOTS.items()))
    day = (_now() - timedelta(days=rng.randrange(1, 4))).date()
    rows = {f"r{n}": rng.choice("abc") for n in range(8) if rng.random() < 0.7} or {"r0": "a"}
    folder = world.settings.data_dir / "landing" / name / day.isoformat()
    text = "".join(json.dumps({key: row, "state": state}) + "\n" for row, state in rows.items())
    with world.machine.from_outside(settled=folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "part.jsonl").write_text(text)
    states = world.truth.snapshots.setdefault((name, day), [None])
    states.append(rows)
    product.take_snapshot(world.open_lake(), world.settings, name, day)
    world.truth.snapshots[name, day] = [rows]


def history(world: World, rng: random.Random) -> None:
    product.refresh_history(world.open_lake(), world.settings, rng.choice(sorted(SNAPSHOTS)))


def retire(world: World, rng: random.Random) -> None:
    since = (_now() - timedelta(days=int(str(RETENTION["value"])))).date()
    world.truth.retired_before = max(world.truth.retired_before, since)
    product.retire(world.open_lake(), _now())


def maintain(world: World, rng: random.Random) -> None:
    lake = world.open_lake()
    product.maintain(lake, rng.choice(sorted(lake.contracts)))


def back_up(world: World, rng: random.Random) -> None:
    if world.backup:
        world.backup.doubt(world.truth)
    before = world.truth.copy()
    product.back_up(world.settings, world.base / "backup")
    world.backup = before


def restore(world: World, rng: random.Random) -> None:
    """The machine is lost, and the last backup becomes its state."""
    if world.backup is None:
        return
    if not world.restoring:
        world.stop_everything()
        with world.machine.from_outside():
            shutil.rmtree(world.settings.data_dir)
            world.settings.data_dir.mkdir()
        events = world.truth.events
        world.truth = world.backup.copy()
        world.truth.events |= events
        world.truth.vouchers_always &= world.variant.vouchers
        world.restoring = True
    product.restore_backup(world.settings, world.base / "backup")
    world.restoring = False


def restore_lake(world: World, rng: random.Random) -> None:
    """The lake alone is brought back from a backup; the log, which kept everything, and the index stay."""
    if world.backup is None or world.deployment.retention_hours == 0 or world.truth.lost_segments:
        return
    world.stop_everything()
    state, aside = world.settings.data_dir, world.base / "aside"
    with world.machine.from_outside():
        state.rename(aside)
        state.mkdir()
        product.restore_backup(world.settings, world.base / "backup")
        for name in ("log", "ingest"):
            shutil.rmtree(state / name, ignore_errors=True)
            if (aside / name).exists():
                (aside / name).rename(state / name)
        shutil.rmtree(aside)
    world.truth.doubt_snapshots(world.backup)


def save_index(world: World, rng: random.Random) -> None:
    """Somebody copies the deduplication index."""
    source, saved = product.index_folder(world.settings), world.base / "saved"
    if source.exists():
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(source, saved)


def swap_index(world: World, rng: random.Random) -> None:
    """The copy takes the place of the index, as on a second machine that did nothing for a while."""
    saved, target = world.base / "saved", product.index_folder(world.settings)
    if saved.exists() and not world.stopped:
        with world.machine.from_outside(settled=target):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(saved, target)


def remove_segment(world: World, rng: random.Random) -> None:
    """A segment of the log is gone."""
    partition = rng.randrange(world.deployment.partitions)
    found = product.segments(world.settings, partition)
    if len(found) < 2 or world.stopped:
        return
    which = rng.randrange(len(found) - 1)
    begin, end = (product.first_position(one) for one in found[which : which + 2])
    log, lake = world.open()
    begin = max(begin, product.consumed(log, lake).get(partition, 0))
    world.truth.lost_segments |= {
        place for place in world.truth.acknowledged if place[0] == partition and begin <= place[1] < end
    }
    with world.machine.from_outside(settled=found[which].parent):
        found[which].unlink()


def jump(world: World, rng: random.Random) -> None:
    """The clock is set, or days go by."""
    # A process that stops for a day may find its files removed, as documented.
    hours = (-2, 1, 2) if world.stopped else (-30, -2, -1, 1, 5, 25, 26, 80)
    world.machine.advance(HOURS * rng.choice(hours))


def resume(world: World, rng: random.Random) -> None:
    """The process that has been stopped for longest goes on."""
    if world.stopped:
        world.resume(world.stopped[0])


def _now() -> datetime:
    return datetime.now(UTC)


HANDLERS: dict[str, Handler] = {
    one.__name__: one
    for one in (
        *(append, redeliver, consume, replay, discard, edit_query_rule, edit_page_rule, edit_datasets, edit_limit),
        *(snapshot, history, retire, maintain, back_up, restore, restore_lake, save_index, swap_index),
        *(remove_segment, jump, resume),
    )
}
