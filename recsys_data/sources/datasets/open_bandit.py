"""Open Bandit Dataset -> the impressions that two policies logged with their propensities, and the clicks on them.

Data flow: `<policy>/<campaign>/<campaign>.csv` -> DuckDB (sorts, and words the lines) -> lines. A row is one item that
a fashion shop showed at one of three positions: an `impression` with `model` (the policy, `random` or `bts`), `list_id`
(the campaign), `position` and `propensity`, and where it was clicked a `click` at the same time.
- Items are numbered within a campaign: `item_id` is `<campaign>-<number>`.
- Rows say neither which of them were shown together nor to whom, only hashed features of the visitor. Each row is
  therefore a recommendation, and a visitor, of its own; the features, and the affinities that are numbers other
  than 0, by item, are `properties`.
Events are named by policy, campaign and the number of the row. A number or time that cannot be read is passed on as
text, a click that is neither 0 nor 1 as an unknown type, for ingestion to reject.
The data: Saito, Aihara, Matsutani and Narita, https://arxiv.org/abs/2008.07146.
Run it alone: `recsys-data load open-bandit PATH`.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from recsys_data.errors import UserError
from recsys_data.sources.datasets import Import
from recsys_data.sources.datasets.csv_files import SHOWN, find_csv, read_csv, read_header
from recsys_data.sources.datasets.staging import Staging
from recsys_data.sql import literal, quote

SOURCE = "open-bandit"
POLICIES = ("random", "bts")
COLUMNS = ("timestamp", "item_id", "position", "click", "propensity_score")
FEATURE, AFFINITY = "user_feature_", "user-item_affinity_"

TIME = r"regexp_full_match(timestamp, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d([.]\d{1,6})?[+]00:00')"
MOMENT = f"CASE WHEN {TIME} THEN replace(replace(timestamp, ' ', 'T'), '+00:00', 'Z') ELSE timestamp END"
NUMBER = "regexp_full_match(propensity, '(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?')"
WHOLE = "regexp_full_match(position, '0|[1-9][0-9]*')"
SHARED = f"""
    'anonymous_id': concat_ws('-', '{SOURCE}', model, campaign, number),
    'item_id': concat_ws('-', campaign, item), 'event_ts': {MOMENT}, 'list_id': campaign,
    'position': CASE WHEN {WHOLE} THEN position::JSON ELSE to_json(position) END,
    'recommendation_id': concat_ws('-', model, campaign, number), 'source': '{SOURCE}'"""
NAME = f"concat_ws(':', '{SOURCE}', model, campaign, number)"
IMPRESSION = f"""{{
    'event_id': {NAME}, 'type': 'impression', {SHARED}, 'model': model,
    'propensity': CASE WHEN {NUMBER} THEN propensity::JSON ELSE to_json(propensity) END, 'properties': properties}}"""
CLICK = f"""{{
    'event_id': {NAME} || ':click', 'type': CASE WHEN click = '1' THEN 'click' ELSE 'click=' || click END, {SHARED}}}"""
LINE = f"coalesce(line, encode(CASE WHEN click IS NULL THEN to_json({IMPRESSION}) ELSE to_json({CLICK}) END::VARCHAR))"


def read(folder: Path) -> Import:
    """One line for each row of every log below the folder, and one for each click.

    Raises:
        UserError: there is no log, or a file cannot be read or has another header.
        Transient: the disk has no room to sort.
    """
    staging = Staging(
        "click VARCHAR, number VARCHAR, model VARCHAR, campaign VARCHAR, item VARCHAR, position VARCHAR, "
        "propensity VARCHAR, timestamp VARCHAR, properties JSON"
    )
    for path in _logs(folder):
        campaign, model = path.parent.name, path.parent.parent.name
        header = _header(path)
        select = (
            f"CASE WHEN {TIME} THEN epoch_us(try_cast(timestamp AS TIMESTAMPTZ)) END AS happened, number, "
            f"{literal(model)} AS model, {literal(campaign)} AS campaign, item_id AS item, position, "
            "propensity_score AS propensity, timestamp"
        )
        for rows, broken in read_csv(path, header):
            named = rows.rename_columns(["number", *header[1:]])
            staging.add(named, f"{select}, {_properties(header)} AS properties")
            clicked = named.filter(pc.not_equal(named["click"], "0"))
            staging.add(clicked, f"{select}, click")
            staging.add_lines([row.line(SOURCE) for row in broken])
    return staging.load(LINE)


def _logs(folder: Path) -> list[Path]:
    """The files of the logs, in the order of their names.

    Raises:
        UserError: there are none.
    """
    there = [path for policy in POLICIES for path in sorted((folder / policy).glob("*")) if path.is_dir()]
    if not there:
        raise UserError(
            f"{folder} holds nothing like {POLICIES[0]}/all/all.csv. Name the folder that holds "
            f"{' or '.join(POLICIES)}."
        )
    return [find_csv(path, path.name) for path in there]


def _header(path: Path) -> list[str]:
    """The columns of a log, the number of the row first; how many affinities there are depends on the campaign.

    Raises:
        UserError: they are others.
    """
    header = read_header(path)
    missing = [name for name in COLUMNS if name not in header]
    others = [name for name in header[1:] if name not in COLUMNS and not name.startswith((FEATURE, AFFINITY))]
    if header[0] or missing or others or len(set(header)) < len(header):
        raise UserError(
            f"{path} has the columns {', '.join(header)[:SHOWN]}. Expected one without a name, {', '.join(COLUMNS)}, "
            f"and columns that begin with {FEATURE} or {AFFINITY}."
        )
    return header


def _properties(header: Sequence[str]) -> str:
    """SQL of the features as a list, and of the affinities that are not 0 by item; JSON."""
    features = ", ".join(quote(name) for name in header if name.startswith(FEATURE))
    pairs = ", ".join(
        f"{{'key': {literal(name.removeprefix(AFFINITY))}, 'value': TRY_CAST({quote(name)} AS DOUBLE)}}"
        for name in header
        if name.startswith(AFFINITY)
    )
    known = f"map_from_entries(list_filter([{pairs}], lambda pair: pair.value <> 0))" if pairs else "NULL"
    return f"to_json({{'user_features': [{features}]::VARCHAR[], 'affinities': {known}}})"
