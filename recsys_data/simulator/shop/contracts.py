"""Contracts that read users and items from the simulated shop's own systems, in place of the landing folders.

Data flow: the built-in contracts of `user_profiles` and `item_catalog`, `SERVERS` -> `demo/contracts/`. Beside them is
a scenario of serving, so that the demo has an experiment.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from recsys_data.durable import write_atomically
from recsys_data.settings import Settings

# As the locations of servers name it.
DEMO = f"{{data_dir}}/{Settings().demo_dir.name}"


def _export(system: str, ending: str, columns: dict[str, str]) -> dict[str, Any]:
    path = f"{DEMO}/{system}/{{day}}/*.{ending}"
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
    "location": f"sqlite:///{DEMO}/shop.db",
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

# The home page: half of the visitors see what goes with their visit only.
HOME = {
    "name": "home",
    "description": "Items for a visitor, by what they did in this visit and before, or in this visit only.",
    "n": 12,
    "candidates": ["session", "model"],
    "filters": ["seen"],
    "exploration": 0.05,
    "variants": {"visit_and_past": 0.5, "visit_only": {"share": 0.5, "candidates": ["session"]}},
}


def write_contracts(demo: Path) -> Path:
    """The built-in contracts of users and items, with the demo's sources in place of the landing folders.

    Returns:
        The folder they are in.
    """
    import yaml

    folder = demo / "contracts"
    for name, servers in SERVERS.items():
        document = yaml.safe_load(files("recsys_data.contracts").joinpath(f"{name}.odcs.yaml").read_text("utf-8"))
        document["servers"] = servers
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        write_atomically(folder / f"{name}.odcs.yaml", text.encode())
    write_atomically(folder / "scenarios" / "home.yaml", yaml.safe_dump(HOME, sort_keys=False).encode())
    return folder
