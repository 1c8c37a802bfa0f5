"""Reads and writes per second of online stores: `python -m benchmarks.online_store [URL ...]`.

A store of KEYS values of VALUE_BYTES bytes, filled by a rebuild; then reads of 100 keys and of 1 key, drawn at random,
and commits of BATCH changes. One process and one thread; CPU seconds are those of this process, without a server's.
Without a URL the embedded store is measured, in a temporary folder. `dynamodb-in-process` stands for DynamoDB simulated
in this process (moto): its numbers say that it works, not how fast Amazon's is.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack

import click

from recsys_data.redaction import redacted_url
from recsys_data.serving.online_store.open import open_online_store
from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data.settings import Settings

KEYS, VALUE_BYTES, BATCH = 1_000_000, 200, 1_000
SECONDS = 5.0
SIMULATED = "dynamodb-in-process"


def measure(store: OnlineStore, count: int) -> None:
    """Print what a store does."""
    keys = [b"user:%09d" % number for number in range(count)]
    value = b"v" * VALUE_BYTES
    draw = random.Random(1)

    def fill() -> int:
        with store.rebuild() as new:
            new.put((key, value) for key in keys)
            new.publish(b"0")
        return count

    reads = [draw.choices(keys, k=100) for _ in range(2_000)]
    singles = [[key] for some in reads[:200] for key in some]
    written = iter(range(1, 1 << 60))

    def commit() -> int:
        number = next(written)
        store.commit(b"%d" % (number - 1), b"%d" % number, [(key, value) for key in draw.choices(keys, k=BATCH)])
        return BATCH

    report("rebuild", fill)
    report("read 100 keys at once", lambda: sum(len(store.get_many(some)) for some in reads), SECONDS)
    report("read 1 key", lambda: sum(len(store.get_many(some)) for some in singles), SECONDS)
    report(f"commit of {BATCH} changes", commit, SECONDS)


def report(name: str, work: Callable[[], int], at_least: float = 0.0) -> None:
    """Repeat work for so many seconds, and print keys a second."""
    done, begun, cpu = 0, time.perf_counter(), time.process_time()
    while not done or time.perf_counter() - begun < at_least:
        done += work()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    click.echo(f"  {name}: {done / seconds:,.0f} keys/s, {done / cpu:,.0f} a CPU second ({cpu:.1f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("urls", nargs="*", default=["embedded"])
    parser.add_argument("--keys", type=int, default=KEYS)
    options = parser.parse_args()
    for url in options.urls:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            click.echo(f"{redacted_url(url)}: {options.keys:,} values of {VALUE_BYTES} bytes")
            if url == SIMULATED:
                from recsys_data_tests.support.online_stores import dynamodb_in_process

                url = dynamodb_in_process(stack)
            store = open_online_store(Settings(dir=folder, online_store=url))
            stack.callback(store.close)
            measure(store, options.keys)
            store.clear()


if __name__ == "__main__":
    main()
