"""A shop with training sets that tests declare, and small feature views."""

import json
import textwrap

import yaml

from recsys_data.training.sets.build import build, rebuild
from recsys_data.training.sets.manifest import read_manifest
from recsys_data_tests.support.feature_views import feature, key, view_file
from recsys_data_tests.support.shop import Shop

PRICES = view_file(
    "item_prices",
    key("item_id"),
    feature("price", "number", source="item_catalog_history.price"),
    feature("events_faded", "number", function="decayed_sum", source="quantity", halfLife="1d"),
    of="interactions",
)
SET = """
    name: clicks
    rows: impressions
    known: event_time
    labels: [{type: click, weight: 1}, {type: purchase, weight: 5, refunds: negate}]
    window: 2h
    maturity: 4h
    features: [item_clicks, user_events]
    split: {by: time, validation: 0.1, test: 0.2}
    """


class TrainingShop(Shop):
    """A platform with small feature views, and with training sets that tests declare."""

    def declare(self, text=SET, **changes):
        """Write a training set to the user's folder."""
        document = yaml.safe_load(textwrap.dedent(text)) | changes
        folder = self.settings.contract_dirs[0] / "training_sets"
        folder.mkdir(exist_ok=True)
        (folder / f"{document['name']}.yaml").write_text(json.dumps(document), "utf-8")

    def build(self, name="clicks", **options):
        return build(self.open_lake(), self.settings, name, **options)

    def rebuild(self, name="clicks", version=None):
        return rebuild(self.open_lake(), self.settings, name, version)

    def manifest(self, name="clicks", version=None):
        return read_manifest(self.settings, name, version)[0]

    def trade(self, first=0, last=200):
        """Impressions, every third of which is clicked, every ninth bought."""
        shown = []
        for n in range(first, last):
            user, item, at = f"u{n % 7}", f"i{n % 11}", n * 0.5
            more = {"session_id": f"s{n % 7}", "list_id": f"l{n // 4}", "position": n % 4 + 1, "quantity": n % 3 + 1}
            shown.append((at, "impression", user, item, more))
            if n % 3 == 0:
                shown.append((at + 0.1, "click", user, item, more))
            if n % 9 == 0:
                shown.append((at + 0.2, "purchase", user, item, more | {"order_id": f"o{n}", "value": n / 7}))
            if n % 27 == 0:
                shown.append((at + 1, "refund", user, item, more | {"order_id": f"o{n}"}))
        self.happen(*shown)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
