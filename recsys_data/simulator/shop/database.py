"""The application database of the storefront: a SQLite file with the table `customers`, brought up to a moment.

Data flow: world, moment -> `customers` -> insert, update, delete in one transaction. Only rows that differ are
written. It is kept with a write-ahead log, so that who reads a snapshot and who writes do not wait for each other.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from recsys_data.errors import Transient
from recsys_data.simulator.catalogue import PLACES
from recsys_data.simulator.epochs import hash_noise
from recsys_data.simulator.shop.customers import SEXES, STATES, customers
from recsys_data.simulator.shop.exports import iso, money
from recsys_data.simulator.world import World

BUSY_SECONDS = 30.0
MAIL_DOMAINS = ("example.com", "example.org", "example.net")
TABLE = """
CREATE TABLE IF NOT EXISTS customers (
    id TEXT PRIMARY KEY, signed_up TEXT NOT NULL, state TEXT NOT NULL, country TEXT NOT NULL, region TEXT NOT NULL,
    city TEXT NOT NULL, lang TEXT NOT NULL, born INTEGER, sex TEXT, likes_categories TEXT NOT NULL,
    likes_brands TEXT NOT NULL, mail_domain TEXT NOT NULL, orders INTEGER NOT NULL, spent TEXT NOT NULL,
    currency TEXT NOT NULL, first_order TEXT, last_order TEXT, modified TEXT NOT NULL
)"""
COLUMNS = (
    "id", "signed_up", "state", "country", "region", "city", "lang", "born", "sex", "likes_categories",
    "likes_brands", "mail_domain", "orders", "spent", "currency", "first_order", "last_order", "modified",
)  # fmt: skip
UPSERT = f"""
INSERT INTO customers ({", ".join(COLUMNS)}) VALUES ({", ".join("?" * len(COLUMNS))})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])}
WHERE excluded.modified > customers.modified"""


def bring_up_to_date(path: Path, world: World, now: int) -> int:
    """Make the database what the shop knows at `now` (seconds since 1970); returns how many rows changed.

    Raises:
        Transient: the file is locked for long, damaged, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(world, now))
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(TABLE)
            before = database.total_changes
            database.execute("BEGIN IMMEDIATE")
            database.executemany(UPSERT, rows)
            there = json.dumps([row[0] for row in rows])
            database.execute("DELETE FROM customers WHERE id NOT IN (SELECT value FROM json_each(?))", (there,))
            database.execute("COMMIT")
            return database.total_changes - before
    except sqlite3.Error as error:
        raise Transient(
            f"The demo's database {path} cannot be brought up to date: {error}. If it is damaged, remove it: it is "
            "made again."
        ) from None


def _rows(world: World, now: int) -> Iterator[tuple[Any, ...]]:
    """The rows of the table, in the order of `COLUMNS`."""
    found = customers(world, now)
    mail = (len(MAIL_DOMAINS) * hash_noise(world.seed, "mail", found.person)).astype(int).tolist()
    numbers = (found.person, found.signed_up, found.state, found.orders, found.cents, found.first_order)
    more = (found.last_order, found.modified, found.born, found.sex)
    for index, row in enumerate(zip(*(column.tolist() for column in (*numbers, *more)), strict=True)):
        person, signed_up, state, orders, cents, first, last, modified, born, sex = row
        place = PLACES[world.people.place[person]]
        yield (
            world.people.user_id[person], iso(signed_up), STATES[state], place.country, place.region, place.city,
            place.locale, born or None, None if sex < 0 else SEXES[sex],
            json.dumps(found.categories[index], ensure_ascii=False),
            json.dumps(found.brands[index], ensure_ascii=False), MAIL_DOMAINS[mail[index]], orders, money(cents),
            place.currency, iso(first), iso(last), iso(modified),
        )  # fmt: skip
