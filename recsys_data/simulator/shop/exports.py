"""What the storefront's CRM, PIM and CMS export each day, for trying the batch side.

Data flow: world, day -> `customers`, `assortment` as they were at the end of the day (UTC) ->
`crm/<day>/customers.csv`, `pim/<day>/items.jsonl`, `cms/<day>/texts.jsonl`. Each is there whole or not at all,
and the same bytes for the same seed and day. Fields have these systems' own names; the contracts of the demo map
them.
"""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from recsys_data.simulator.epochs import DAY
from recsys_data.simulator.shop.assortment import assortment, texts
from recsys_data.simulator.shop.customers import customers, relations
from recsys_data.simulator.world import World
from recsys_data.sources.files.day_folders import whole_file

FILES = {"crm": "customers.csv", "pim": "items.jsonl", "cms": "texts.jsonl"}
DAYS = 5


def make_missing(folder: Path, world: World, today: date) -> list[date]:
    """Write the exports of the last `DAYS` days that are over where they are missing; returns those days."""
    days = [today - timedelta(days=ago) for ago in range(DAYS, 0, -1)]
    made = [day for day in days if not all(_file(folder, system, day).is_file() for system in FILES)]
    for day in made:
        make_day(folder, world, day)
    return made


def make_day(folder: Path, world: World, day: date) -> None:
    """Write one day's exports below `folder`."""
    end = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) + DAY
    rows = {"crm": _crm, "pim": _pim, "cms": _cms}
    for system, make in rows.items():
        with whole_file(_file(folder, system, day)) as file:
            file.write(make(world, end))


def iso(seconds: int) -> str | None:
    """A time as text; None for 0, which is never.

    >>> iso(1), iso(0)
    ('1970-01-01T00:00:01Z', None)
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else None


def money(cents: int) -> str:
    """A decimal number as text.

    >>> money(1999), money(5)
    ('19.99', '0.05')
    """
    return f"{cents // 100}.{cents % 100:02}"


def _file(folder: Path, system: str, day: date) -> Path:
    return folder / system / day.isoformat() / FILES[system]


def _crm(world: World, end: int) -> bytes:
    found = customers(world, end)
    known = relations(world, found, end)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["customer_no", "segments", "profiling", "marketing"])
    for person, segments, profiling, marketing in zip(
        found.person.tolist(), known.segments, known.profiling.tolist(), known.marketing.tolist(), strict=True
    ):
        agreed = (str(value).lower() for value in (profiling, marketing))
        writer.writerow([world.people.user_id[person], "|".join(segments), *agreed])
    return out.getvalue().encode()


def _lines(rows: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _pim(world: World, end: int) -> bytes:
    found, items = assortment(world, end), world.items
    features = items.factors.round(4)
    columns = (found.item, found.listed, found.changed, found.cents, found.available)
    return _lines(
        {
            "sku": items.item_id[item],
            "kind": "product",
            "name": items.title[item],
            "brand": {"name": items.brand[item]},
            "path": world.categories.path[items.category[item]],
            "price": {"amount": money(cents), "currency": "EUR"},
            "stock": {"sellable": available},
            "specs": items.attributes[item],
            "codes": {"gtin": _gtin(item)},
            "image": {
                "url": f"https://images.example.com/{items.item_id[item]}.jpg",
                "features": features[item].tolist(),
            },
            "launched": (iso(listed) or "")[:10],
            "listed_at": iso(listed),
            "changed_at": iso(changed),
        }
        for item, listed, changed, cents, available in zip(*(column.tolist() for column in columns), strict=True)
    )


def _gtin(item: int) -> str:
    """A GTIN-13 of the range that shops give out among themselves.

    >>> _gtin(7)
    '2000000000077'
    """
    digits = f"2{item:011}"
    return digits + str(-sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10)


def _cms(world: World, end: int) -> bytes:
    found = assortment(world, end)
    return _lines(
        {
            "sku": world.items.item_id[item],
            "summary": said.summary,
            "text": said.body,
            "topics": said.topics,
            "lang": "en",
        }
        for item, said in zip(found.item.tolist(), texts(world, found), strict=True)
    )
