"""The demo of `recsys-data up`: a shop whose traffic, database and exports go on as long as it runs.

Data flow: the storefront's world -> events to the collector; beside them `demo/shop.db` (every minute) and
`demo/{crm,pim,cms}/<day>/` (when a day is over) -> snapshots of users and items, by the contracts of the demo.
Run it alone: `python -m recsys_data.cli.demo simulate --rate 20 --to http://127.0.0.1:8080`.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from recsys_data.operations.platform import explain
from recsys_data.settings import Settings

DEMO = "demo"  # below the state folder
REFRESH_SECONDS = 60.0


def _export(system: str, ending: str, columns: dict[str, str]) -> dict[str, Any]:
    path = f"{{data_dir}}/{DEMO}/{system}/{{day}}/*.{ending}"
    mapped = [{"property": "columns", "value": columns}]
    return {"server": system, "type": "local", "path": path, "format": ending, "customProperties": mapped}


SHOP_COLUMNS = {
    "user_id": "id",
    "registered_at": "signed_up",
    "status": "state",
    "language": "lang",
    "birth_year": "born",
    "gender": "sex",
    "preferred_categories": "likes_categories",
    "preferred_brands": "likes_brands",
    "email_domain": "mail_domain",
    "orders_count": "orders",
    "total_spent": "spent",
    "first_order_at": "first_order",
    "last_order_at": "last_order",
    "updated_at": "modified",
}
SHOP = {
    "server": "shop",
    "type": "custom",
    "description": "The shop's own database.",
    "location": f"sqlite:///{{data_dir}}/{DEMO}/shop.db",
    "customProperties": [
        {"property": "table", "value": "customers"},
        {"property": "columns", "value": SHOP_COLUMNS},
    ],
}
CRM = {"user_id": "customer_no", "consent_profiling": "profiling", "consent_marketing": "marketing"}
PIM = {
    "item_id": "sku",
    "item_type": "kind",
    "title": "name",
    "brand": "brand.name",
    "category_path": "path",
    "price": "price.amount",
    "currency": "price.currency",
    "available": "stock.sellable",
    "released": "launched",
    "image_url": "image.url",
    "image_features": "image.features",
    "external_ids": "codes",
    "attributes": "specs",
    "created_at": "listed_at",
    "updated_at": "changed_at",
}
CMS = {"item_id": "sku", "description": "summary", "body": "text", "language": "lang"}
SERVERS = {
    "user_profiles": [SHOP, _export("crm", "csv", CRM)],
    "item_catalog": [_export("pim", "jsonl", PIM), _export("cms", "jsonl", CMS)],
}


def write_contracts(data_dir: Path) -> Path:
    """The built-in contracts of users and items, with the demo's sources in place of the landing folders.

    Returns:
        The folder they are in.
    """
    from importlib.resources import files

    import yaml

    from recsys_data.durable import write_atomically

    folder = data_dir / DEMO / "contracts"
    for name, servers in SERVERS.items():
        document = yaml.safe_load(files("recsys_data.contracts").joinpath(f"{name}.odcs.yaml").read_text("utf-8"))
        document["servers"] = servers
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        write_atomically(folder / f"{name}.odcs.yaml", text.encode())
    return folder


def keep_sources(data_dir: Path, done: Callable[[float], bool], now: Callable[[], float] = time.time) -> None:
    """Bring the shop's systems up to date again and again; what fails is told, and tried again.

    Args:
        data_dir: the state folder.
        done: waits for some seconds; true ends it.
        now: seconds since 1970.
    """
    from recsys_data.simulator.exports import make_missing
    from recsys_data.simulator.shop_database import bring_up_to_date
    from recsys_data.simulator.world import build

    folder = data_dir / DEMO
    over = False
    while not over:
        moment = now()
        try:
            for day in make_missing(folder, build(), datetime.fromtimestamp(moment, UTC).date()):
                click.echo(f"Exported {day}.", err=True)
            bring_up_to_date(folder / "shop.db", build(), int(moment))
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            click.echo(f"Error: {message}", err=True)
        over = done(REFRESH_SECONDS)


def main() -> None:
    """Run the command line on the arguments of this process, and keep the sources beside it."""
    from recsys_data.cli import main as command_line

    # It ends with the process: whatever it writes is whole or not there.
    arguments = (Settings.from_env().data_dir, threading.Event().wait)
    threading.Thread(target=keep_sources, args=arguments, name="demo sources", daemon=True).start()
    command_line()


if __name__ == "__main__":
    main()
