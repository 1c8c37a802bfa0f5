"""The data backbone of a recommender system.

Stages, which know nothing of Dagster or of the command line; imports go one way, downwards:

- `monitoring`: whether it is fresh, reconciled and healthy
- `features`: what is computed of users, items and sessions, true to the past
- `ingestion`: how data gets in: `streaming` (collector -> event log -> micro-batches) and `batch` (staging -> snapshot
  -> history)
- `sources`: where it comes from (databases, files, public data sets)
- `storage`: where it is kept (Apache Iceberg), maintained and queried (DuckDB)
- `contracts`: what is collected, one file per dataset; everything else is derived from it

Ground nouns at the top: `settings`, `errors`, `logs`, `redaction`, `durable`, `scratch`, `background`, ...

Faces: `defs` (Dagster), `definitions`, `cli`, `operations` (the processes of `up`, its UI, backup)
and the `simulator` of a storefront. `connect` opens the lake for notebooks (`api`).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from recsys_data.api import Connection


def connect(data_dir: "str | PathLike[str] | None" = None) -> "Connection":
    """Open the lake to read it; see `Connection`.

    Args:
        data_dir: the state folder; None is that of the settings (`RECSYS_DATA_DIR`).

    Raises:
        UserError: a setting, a contract or the state folder cannot be used.
    """
    import msgspec

    from recsys_data.api import Connection
    from recsys_data.settings import Settings

    settings = Settings.from_env()
    return Connection(settings if data_dir is None else msgspec.structs.replace(settings, dir=str(data_dir)))
