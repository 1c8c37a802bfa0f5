"""User events of Google's Retail API: `train.jsonl`, `validation.jsonl`, `test.jsonl`.

An event is a row with a label above 0 of which Google has an event type. A click is a view of the page of an item
where the set has no views of its own. A training set does not know quantities: each event is of one. Of purchases
Google asks the revenue: it is the label, if that is money and `--currency` says of which kind.
Format: https://cloud.google.com/retail/docs/user-events. `recsys_data.sources.datasets.google_retail` reads it.
"""

from pathlib import Path

from recsys_data.errors import UserError
from recsys_data.sql import literal
from recsys_data.training.exports.rows import Options, Rows, Written

# label_type -> eventType
TYPES = {"view": "detail-page-view", "add_to_cart": "add-to-cart", "purchase": "purchase-complete"}
BATCH_ROWS = 50_000


def write(rows: Rows, folder: Path, options: Options) -> Written:
    """Write the events of each split that has any.

    Raises:
        UserError: no label of the set is an event of Google's, or purchases are not labelled with money.
    """
    declared = {label.type: label.weight for label in rows.manifest.declaration.labels}
    types = {name: kind for name, kind in TYPES.items() if name in declared}
    if "view" not in declared and "click" in declared:
        types["click"] = TYPES["view"]
    left_out = _left_out(rows, types, options.currency)
    if options.currency is None:
        types.pop("purchase", None)
    elif not isinstance(declared.get("purchase"), str):
        raise UserError(
            f"--currency {options.currency} makes labels of purchases revenue, but in {rows.manifest.name} a purchase "
            f"weighs {declared.get('purchase', 'nothing')}. Declare its weight as SQL (weight: value), or leave it out."
        )
    if not types:
        raise UserError(
            f"{rows.manifest.name} has the labels {', '.join(declared)}; Google Retail has events of view, click, "
            "add_to_cart and purchase (with --currency). Export it in another format."
        )
    kept = f"label > 0 AND label_type IN ({', '.join(map(literal, types))})"
    counts = rows.counts(kept)
    for split, count in counts.items():
        if count:
            query = f"SELECT {_event(types, options.currency)} AS line FROM ({rows.of(split)}) WHERE {kept}"
            with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for batch in rows.connection.sql(query).to_arrow_reader(BATCH_ROWS):
                    file.writelines(f"{line}\n" for line in batch.column("line").to_pylist())
    features = rows.features()
    reason = "a value of its moment, not of an event"
    return Written(counts, left_out, dict.fromkeys([*features.names, *features.left_out], reason))


def _event(types: dict[str, str], currency: str | None) -> str:
    """SQL of a row as JSON, without what it does not know."""
    cases = " ".join(f"WHEN {literal(name)} THEN {literal(kind)}" for name, kind in types.items())
    transaction = ""
    if currency is not None:
        paid = f"{{'revenue': label, 'currencyCode': {literal(currency)}}}"
        transaction = f", 'purchaseTransaction': CASE label_type WHEN 'purchase' THEN {paid} END"
    # Google takes a quantity of what is put into carts and bought only.
    quantity = "CASE WHEN label_type IN ('add_to_cart', 'purchase') THEN 1 END"
    event = f"""{{'eventType': CASE label_type {cases} END, 'visitorId': visitor_id, 'sessionId': session_id,
        'eventTime': strftime(make_timestamp(epoch_us(timestamp)), '%Y-%m-%dT%H:%M:%S.%fZ'),
        'attributionToken': recommendation_id,
        'userInfo': CASE WHEN user_id IS NOT NULL THEN {{'userId': user_id}} END{transaction}}}"""
    product = f"{{'product': {{'id': item_id}}, 'quantity': {quantity}}}"
    # A merge takes members out that are null, but not those within a list.
    return f"""json_merge_patch('{{}}', to_json({event}),
        json_object('productDetails', json_array(json_merge_patch('{{}}', to_json({product})))))::VARCHAR"""


def _left_out(rows: Rows, types: dict[str, str], currency: str | None) -> dict[str, int]:
    """Why rows have no event, and how many they are."""
    query = f"SELECT label > 0, label_type, count(*) FROM ({rows.all()}) GROUP BY ALL ORDER BY ALL"
    found: dict[str, int] = {}
    for positive, name, count in rows.connection.execute(query).fetchall():
        if not positive:
            reason = "label 0: Google has no event of what was not followed"
        elif name == "purchase" and currency is None:
            reason = "purchase: Google asks its revenue; see --currency"
        elif name not in types:
            reason = f"{name}: Google has no such event"
        else:
            continue
        found[reason] = found.get(reason, 0) + count
    return found
