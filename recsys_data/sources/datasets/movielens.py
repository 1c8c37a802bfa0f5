"""MovieLens -> ratings and tags as events, merged in event-time order.

Data flow: `ratings.csv` and `tags.csv` -> DuckDB (sorts, and words the lines) -> lines. The other files of
the folder describe movies and are not events: see `movielens_movies`.
Each row becomes one event, named by what makes it unique: `movielens:rating:<user>:<movie>:<timestamp>`,
`movielens:tag:<user>:<movie>:<timestamp>:<hash of the tag>`. A time or a rating that cannot be read is passed
on as text, and a row with a wrong number of cells as a whole, for ingestion to reject.
Run it alone: `recsys-data load movielens FOLDER`. The data: Harper and Konstan, https://doi.org/10.1145/2827872.
"""

from pathlib import Path

from recsys_data.sources.datasets import Import
from recsys_data.sources.datasets.csv_files import find_csv, read_csv
from recsys_data.sources.datasets.movielens_movies import movies
from recsys_data.sources.datasets.staging import Staging

SOURCE = "movielens"
# Seconds since 1970; more digits would be milliseconds, or beyond the year 5138.
SECONDS = "regexp_full_match(timestamp, '[0-9]{1,11}')"
NUMBER = "regexp_full_match(rating, '-?(0|[1-9][0-9]*)([.][0-9]+)?')"
TIME = f"CASE WHEN {SECONDS} THEN strftime(make_timestamp(happened), '%Y-%m-%dT%H:%M:%SZ') ELSE timestamp END"
# DuckDB's own JSON writer escapes whatever stands in a tag.
RATING = f"""{{
    'event_id': concat_ws(':', '{SOURCE}:rating', userId, movieId, timestamp), 'type': 'rating',
    'user_id': userId, 'item_id': movieId, 'event_ts': {TIME},
    'rating': CASE WHEN {NUMBER} THEN rating::JSON ELSE to_json(rating) END, 'source': '{SOURCE}'}}"""
TAG = f"""{{
    'event_id': concat_ws(':', '{SOURCE}:tag', userId, movieId, timestamp, left(md5(tag), 12)), 'type': 'tag',
    'user_id': userId, 'item_id': movieId, 'event_ts': {TIME}, 'tag': tag, 'source': '{SOURCE}'}}"""
LINE = f"coalesce(line, encode(CASE WHEN tag IS NULL THEN to_json({RATING}) ELSE to_json({TAG}) END::VARCHAR))"


def read(folder: Path) -> Import:
    """One line for each row of both files, and the movies as known on the day of the newest.

    Raises:
        UserError: one of them is missing, or a file cannot be read or has another header.
        Transient: the disk has no room to sort.
    """
    files = {what: find_csv(folder, f"{what}s") for what in ("rating", "tag")}
    staging = Staging("userId VARCHAR, movieId VARCHAR, rating VARCHAR, tag VARCHAR, timestamp VARCHAR")
    happened = f"CASE WHEN {SECONDS} THEN timestamp::BIGINT * 1000000 END AS happened"
    for what, path in files.items():
        columns = ("userId", "movieId", what, "timestamp")
        for rows, broken in read_csv(path, columns):
            staging.add(rows, f"{happened}, {', '.join(columns)}")
            staging.add_lines([row.line(SOURCE) for row in broken])
    return staging.load(LINE, movies(folder, staging.scratch, staging.newest()))
