"""Amazon Personalize's item interactions: `SPLIT/interactions.csv`, and `interactions.schema.json` for all of them.

An interaction is a row with a label above 0: its type and its label are EVENT_TYPE and EVENT_VALUE. Rows with the label
0 that were shown are in IMPRESSION of those of the same list, user and session. Time is cut to seconds. Each split has
a folder of its own, because an import reads all files of a folder.
Format: https://docs.aws.amazon.com/personalize/latest/dg/interactions-datasets.html.
"""

from pathlib import Path

import msgspec

from recsys_data.training.exports.rows import LINE_ENDS, ROW, USER, Options, Rows, Written, renamed
from recsys_data.training.sets.split import SPLITS

NAMESPACE = "com.amazonaws.personalize.schema"
# Avro types as Personalize expects them.
TYPES = {
    "USER_ID": "string",
    "ITEM_ID": "string",
    "TIMESTAMP": "long",
    "EVENT_TYPE": "string",
    "EVENT_VALUE": ["float", "null"],
    "IMPRESSION": ["string", "null"],
    "RECOMMENDATION_ID": ["string", "null"],
}
COLUMNS = {
    "USER_ID": USER,
    "ITEM_ID": "item_id",
    "TIMESTAMP": "epoch_us(timestamp) // 1000000",
    "EVENT_TYPE": "label_type",
    "EVENT_VALUE": "label",
    "IMPRESSION": "impression",
    "RECOMMENDATION_ID": "recommendation_id",
}
# An outcome without an impression is a query of its own.
SHOWN = "negative IS DISTINCT FROM 'sampled' AND query_id <> event_id"


def write(rows: Rows, folder: Path, options: Options) -> Written:
    """Write the interactions of each split that has any, and their schema."""
    shown = rows.manifest.declaration.rows == "impressions"
    for column, value in (("user_id", USER), ("item_id", "item_id"), ("recommendation_id", "recommendation_id")):
        why = "Personalize expects one line for each interaction."
        rows.refuse(column, f"regexp_matches({value}, '{LINE_ENDS}')", why, value)
    if shown:
        rows.refuse("item_id", "contains(item_id, '|')", "in IMPRESSION, | separates items.")
    columns = {name: value for name, value in COLUMNS.items() if shown or name != "IMPRESSION"}
    positive, negative = rows.counts("label > 0"), rows.counts("label <= 0 AND negative = 'impression'")
    for split in (one for one in SPLITS if positive[one]):
        (folder / split).mkdir()
        query = f"SELECT {renamed(columns)} FROM ({_with_impressions(rows.of(split)) if shown else rows.of(split)})"
        rows.copy(
            f"{query} WHERE label > 0 ORDER BY {ROW}", folder / split / "interactions.csv", FORMAT="csv", HEADER=""
        )
    fields = [{"name": name, "type": TYPES[name]} for name in columns]
    schema = {"type": "record", "name": "Interactions", "namespace": NAMESPACE, "fields": fields, "version": "1.0"}
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"
    (folder / "interactions.schema.json").write_bytes(text)
    rest = sum(rows.counts().values()) - sum(positive.values()) - sum(negative.values())
    left_out = {"label 0: only in IMPRESSION": sum(negative.values()), "label 0 and not shown": rest}
    features = rows.features()
    return Written(
        positive,
        {reason: count for reason, count in left_out.items() if count},
        dict.fromkeys([*features.names, *features.left_out], "a value of its moment, not of an item or user"),
    )


def _with_impressions(of: str) -> str:
    """SQL of rows with the items of their list, in the order in which they were shown, as `impression`."""
    # Lists of pages, such as a category's, have the same id on every visit.
    visit = f"query_id AS q, {USER} AS u, coalesce(session_id, '') AS s"
    first = f"SELECT {visit}, item_id, min(position) AS place, min({ROW}) AS n FROM ({of}) WHERE {SHOWN} GROUP BY ALL"
    lists = f"SELECT q, u, s, string_agg(item_id, '|' ORDER BY place, n) AS impression FROM ({first}) GROUP BY ALL"
    mine = f"q = query_id AND u = {USER} AND s = coalesce(session_id, '') AND query_id <> event_id"
    return f"SELECT r.*, impression FROM ({of}) r LEFT JOIN ({lists}) ON {mine}"
