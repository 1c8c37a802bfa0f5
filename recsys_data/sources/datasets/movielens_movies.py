"""MovieLens -> its movies, as the state of `item_catalog` on the day of the newest rating or tag.

Data flow: `movies.csv` and `links.csv`, where they are there -> DuckDB -> one row for each movie, under the item
id of the events. The year leaves the title (`Toy Story (1995)`), of a series it is the first one. Rows with
a wrong number of cells are passed on as rows without an id, for ingestion to reject.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec

from recsys_data.sources.datasets.csv_files import BrokenRow, find_optional_csv, read_csv
from recsys_data.sources.datasets.landing import State
from recsys_data.sources.datasets.staging import BATCH_LINES, Scratch

SOURCE = "movielens"
COLUMNS = {"movies": ("movieId", "title", "genres"), "links": ("movieId", "imdbId", "tmdbId")}
WITH_YEAR = r"'^(.*\S)\s*\(([0-9]{4})([–-][0-9]{0,4})?\)$'"
# A merge patch leaves out what is null.
MOVIES = rf"""
    WITH linked AS (SELECT movieId, min(nullif(imdbId, '')) AS imdb, min(nullif(tmdbId, '')) AS tmdb
                    FROM links GROUP BY movieId),
    named AS (SELECT movieId, genres, trim(title) AS whole, regexp_matches(whole, {WITH_YEAR}) AS dated FROM movies)
    SELECT encode(json_merge_patch('{{}}', to_json({{
        'item_id': nullif(movieId, ''), 'item_type': 'movie',
        'title': CASE WHEN dated THEN regexp_extract(whole, {WITH_YEAR}, 1) ELSE nullif(whole, '') END,
        'release_year': CASE WHEN dated THEN regexp_extract(whole, {WITH_YEAR}, 2)::INTEGER END,
        'genres': CASE WHEN genres IN ('', '(no genres listed)') THEN [] ELSE string_split(genres, '|') END,
        'external_ids': CASE WHEN coalesce(imdb, tmdb) IS NOT NULL THEN {{'imdb': imdb, 'tmdb': tmdb}} END
    }}))::VARCHAR) AS line
    FROM named LEFT JOIN linked USING (movieId) ORDER BY length(movieId), movieId, whole, genres"""


def movies(folder: Path, scratch: Scratch, day: date | None) -> list[State]:
    """The state of the movies on `day`; none without a day or without `movies.csv`.

    Raises:
        UserError: a file cannot be read, or has another header.
    """
    files = {name: find_optional_csv(folder, name) for name in COLUMNS}
    if day is None or files["movies"] is None:
        return []
    broken: list[bytes] = []
    for name, columns in COLUMNS.items():
        scratch.run(f"CREATE TABLE {name} ({', '.join(f'{column} VARCHAR' for column in columns)})")
        path = files[name]
        for rows, wrong in read_csv(path, columns) if path else ():
            scratch.insert(name, rows, ", ".join(columns))
            broken += [_without_id(row) for row in wrong]

    def lines() -> Iterator[list[bytes]]:
        yield from scratch.lines(MOVIES)
        yield from (broken[start : start + BATCH_LINES] for start in range(0, len(broken), BATCH_LINES))

    return [State("item_catalog", day, SOURCE, lines)]


def _without_id(row: BrokenRow) -> bytes:
    """What ingestion rejects, with the text that was there."""
    return msgspec.json.encode({"attributes": {"file": row.file, "row": str(row.number), "text": row.text}})
