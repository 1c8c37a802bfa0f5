"""Features of public data sets through the whole platform, against plain Python over the raw files.

    python -m benchmarks.features oracle --data FOLDER

Data flow: files -> `load`, `ingest`, snapshots, histories -> `features join --known event_time` -> compared, value by
value, with what `retail_oracle` and `movielens_oracle` make of the same files; they share no code with the platform.

- Online Retail (FOLDER/online-retail): engagement and price of random items at random moments of its days.
- MovieLens (FOLDER/movielens-latest-small): user and item features at each rating.
"""

import argparse
import bisect
import csv
import gzip
import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

HOUR, DAY = 3_600_000_000, 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONDON = ZoneInfo("Europe/London")
WINDOWS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
Values = dict[str, Any]
Oracle = Callable[[str, int], Values]


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def begins(window: str, moment: int) -> int:
    """When a window begins that the shipped views call by this name: of an hour exactly, of others at a hop."""
    size = WINDOWS[window]
    if size == HOUR:
        return moment - size
    hop = DAY if size > 12 * DAY else HOUR
    return (moment - size) // hop * hop


class Happened:
    """What happened to one entity: (moment, kind, value), in order of time."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, Fraction | None]] = []
        self.moments: list[int] = []

    def sort(self) -> None:
        self.rows.sort(key=lambda row: row[0])
        self.moments = [row[0] for row in self.rows]

    def between(self, first: int, end: int) -> list[tuple[int, str, Fraction | None]]:
        return self.rows[bisect.bisect_left(self.moments, first) : bisect.bisect_left(self.moments, end)]


def lines(path: Path) -> Iterable[dict[str, str]]:
    raw = path.read_bytes()
    yield from csv.DictReader(io.StringIO((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(), newline=""))


def retail_oracle(data: Path) -> tuple[list[str], list[int], Oracle]:
    """Items, first and last moment, and what `item_engagement` and `item_attributes` have to say of an item."""
    rows = [row for path in sorted((data / "by-day").glob("*.csv*")) for row in lines(path)]
    sizes = Counter(row["InvoiceNo"] for row in rows)
    happened: dict[str, Happened] = defaultdict(Happened)
    priced: dict[str, dict[date, Fraction]] = defaultdict(dict)
    for row in rows:
        local = datetime.strptime(row["InvoiceDate"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=LONDON)
        invoice, quantity, price = row["InvoiceNo"], int(row["Quantity"]), Fraction(row["UnitPrice"])
        cancelled = invoice.upper().startswith("C")
        if price > 0 and not cancelled:
            priced[row["StockCode"]][local.date()] = price
        stock = sizes[invoice] == 1 and not row["CustomerID"] and price == 0
        if stock or (invoice[0].isalpha() and not cancelled):
            continue
        kind = "refund" if cancelled or quantity < 0 else "purchase"
        worth = quantity * price * (-1 if kind == "refund" else 1)
        happened[row["StockCode"]].rows.append((microseconds(local.astimezone(UTC)), kind, worth))
    for one in happened.values():
        one.sort()
    # The state of a day is known when that day is over.
    known = {
        item: sorted(
            (microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC)) + DAY, price)
            for day, price in by_day.items()
        )
        for item, by_day in priced.items()
    }
    moments = [one for item in happened.values() for one in item.moments]

    def values(item: str, moment: int) -> Values:
        return {**engagement(happened[item], moment), **prices(known.get(item, []), moment)}

    return sorted(happened), [min(moments), max(moments)], values


def engagement(one: Happened, moment: int) -> Values:
    """Of `item_engagement`: order lines, returns and revenue by window, conversion and popularity."""
    found: Values = {}
    for window in WINDOWS:
        rows = one.between(begins(window, moment), moment)
        paid = [worth for _, kind, worth in rows if kind == "purchase"]
        found[f"item_engagement__purchases_{window}"] = len(paid)
        found[f"item_engagement__returns_{window}"] = len(rows) - len(paid)
        found[f"item_engagement__revenue_{window}"] = float(sum(filter(None, paid), Fraction())) if paid else None
    bought = [at for at, kind, _ in one.between(begins("30d", moment), moment) if kind == "purchase"]
    found["item_engagement__conversion_30d"] = (len(bought) + 1) / 50
    popularity = math.fsum(5 * 2.0 ** (-(moment - at) / (3 * DAY)) for at in bought)
    found["item_engagement__popularity"] = popularity if bought else None
    return found


def prices(known: list[tuple[int, Fraction]], moment: int) -> Values:
    """Of `item_attributes`: the price, and its median of 30 days by how long each price held."""
    places = [at for at, _ in known]
    place = bisect.bisect_right(places, moment)
    price = known[place - 1][1] if place else None
    held: Counter[Fraction] = Counter()
    for number, (at, worth) in enumerate(known[:place]):
        end = min(known[number + 1][0] if number + 1 < len(known) else moment, moment)
        held[worth] += max(0, end - max(at, moment - 30 * DAY))
    below, median = 0, None
    for worth, weight in sorted(held.items()):
        below += weight
        if median is None and weight and 2 * below >= sum(held.values()):
            median = worth
    return {
        "item_attributes__price": None if price is None else float(price),
        "item_attributes__price_median_30d": None if median is None else float(median),
        "item_attributes__price_ratio": None if price is None or not median else float(price / median),
    }


def movielens_oracle(data: Path) -> tuple[list[tuple[str, str, int]], Callable[[str, str, int], Values]]:
    """The ratings (user, movie, moment), and what the views have to say of user and movie."""
    (path,) = data.glob("ratings.csv*")
    ratings = [
        (row["userId"], row["movieId"], int(row["timestamp"]) * 1_000_000, Fraction(row["rating"]))
        for row in lines(path)
    ]
    (path,) = data.glob("tags.csv*")
    tags = {(row["userId"], row["movieId"], int(row["timestamp"]) * 1_000_000, row["tag"]) for row in lines(path)}
    users: dict[str, Happened] = defaultdict(Happened)
    movies: dict[str, Happened] = defaultdict(Happened)
    for user, movie, at, rating in ratings:
        users[user].rows.append((at, "rating", rating))
        movies[movie].rows.append((at, "rating", rating))
    for user, _, at, _ in tags:
        users[user].rows.append((at, "tag", None))
    for one in (*users.values(), *movies.values()):
        one.sort()

    def mean(one: Happened, moment: int) -> tuple[int, float | None]:
        rated = [rating for _, kind, rating in one.between(-(2**62), moment) if kind == "rating" and rating is not None]
        return len(rated), float(sum(rated) / len(rated)) if rated else None

    def values(user: str, movie: str, moment: int) -> Values:
        mine = users[user]
        found: Values = {f"user_activity__events_{w}": len(mine.between(begins(w, moment), moment)) for w in WINDOWS}
        found["user_activity__rating_avg"] = mean(mine, moment)[1]
        number, average = mean(movies[movie], moment)
        return {**found, "item_engagement__ratings": number, "item_engagement__rating_avg": average}

    return [(user, movie, at) for user, movie, at, _ in ratings], values


def platform(folder: Path, *commands: list[str]) -> None:
    """Run commands of the platform on a state folder."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
    environment = {**plain, "RECSYS_DATA_DIR": str(folder / "data")}
    for command in commands:
        subprocess.run(
            [sys.executable, "-m", "recsys_data.cli", *command], check=True, env=environment, stdout=subprocess.DEVNULL
        )


def take_items(folder: Path) -> None:
    """Take the states of items that were landed, and make their history."""
    from recsys_data.contracts import load_contracts
    from recsys_data.ingestion.batch.history.update import refresh_history
    from recsys_data.ingestion.batch.snapshot import take_snapshot
    from recsys_data.settings import Settings
    from recsys_data.storage.tables import open_lake

    settings = Settings(dir=str(folder / "data"), landing_rest_seconds=0)
    lake = open_lake(settings, load_contracts())
    for day in sorted((settings.landing_dir / "item_catalog").iterdir()):
        take_snapshot(lake, settings, "item_catalog", date.fromisoformat(day.name), True)
    refresh_history(lake, "item_catalog", settings.staging_dir)


def joined(folder: Path, spine: list[dict[str, Any]], views: str) -> list[Values]:
    """The spine with the features of the views."""
    (folder / "spine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spine))
    given = ["--spine", str(folder / "spine.jsonl"), "--views", views, "--known", "event_time"]
    platform(folder, ["features", "join", *given, "--out", str(folder / "joined.jsonl")])
    return [json.loads(line) for line in (folder / "joined.jsonl").read_text().splitlines()]


def text_of(moment: int) -> str:
    return (EPOCH + timedelta(microseconds=moment)).isoformat()


def differences(found: list[Values], wanted: list[Values]) -> list[str]:
    """The first values that differ; sums of doubles may by a billionth."""
    if len(found) != len(wanted):
        return [f"{len(found)} rows came back of {len(wanted)}"]
    said = []
    for row, values in zip(found, wanted, strict=True):
        for name, value in values.items():
            mine = row[name]
            near = None not in (mine, value) and math.isclose(mine, value, rel_tol=1e-9, abs_tol=1e-9)
            if mine != value and not near:
                said.append(f"{name} of {row.get('item_id')} at {row['timestamp']}: {mine}, expected {value}")
    return said


def retail(data: Path, folder: Path, pairs: int) -> tuple[int, list[str]]:
    """Values compared and what differs, of random (item, moment) pairs; a tenth at the moment of an event."""
    items, (first, last), oracle = retail_oracle(data)
    platform(folder, ["load", "online-retail", str(data)], ["ingest", "--until-empty"])
    take_items(folder)
    chosen = random.Random(7)
    asked = [(chosen.choice(items), chosen.randint(first - DAY, last + 40 * DAY)) for _ in range(pairs)]
    asked[::10] = [(item, moment // 60_000_000 * 60_000_000) for item, moment in asked[::10]]
    spine = [{"item_id": item, "timestamp": text_of(moment)} for item, moment in asked]
    wanted = [oracle(item, moment) for item, moment in asked]
    found = joined(folder, spine, "item_engagement,item_attributes")
    return sum(map(len, wanted)), differences(found, wanted)


def movielens(data: Path, folder: Path, most: int | None = None) -> tuple[int, list[str]]:
    """Values compared and what differs, at each rating or `most` of them."""
    ratings, oracle = movielens_oracle(data)
    platform(folder, ["load", "movielens", str(data)], ["ingest", "--until-empty"])
    asked = ratings if most is None else random.Random(7).sample(ratings, min(most, len(ratings)))
    spine = [{"user_id": user, "item_id": movie, "timestamp": text_of(at)} for user, movie, at in asked]
    wanted = [oracle(*one) for one in asked]
    found = joined(folder, spine, "user_activity,item_engagement")
    return sum(map(len, wanted)), differences(found, wanted)


def compare(options: argparse.Namespace) -> list[str]:
    """Print how many values were compared; returns those that differ."""
    problems: list[str] = []
    for name, work in {
        "online-retail": lambda data, folder: retail(data, folder, options.pairs),
        "movielens-latest-small": movielens,
    }.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            values, differ = work(options.data / name, Path(folder))
        sys.stdout.write(f"{name}: {values:,} values compared, {len(differ):,} differ\n")
        problems += differ[:10]
    return problems
