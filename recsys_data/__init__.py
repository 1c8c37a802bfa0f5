"""The data backbone of a recommender system.

Stages, which know nothing of Dagster or of the command line; imports go one way, downwards:

- `monitoring`: whether it is fresh, reconciled and healthy
- `ingestion`: how data gets in: `streaming` (collector -> event log -> micro-batches) and `batch` (staging -> snapshot
  -> history)
- `sources`: where it comes from (databases, files, public data sets)
- `storage`: where it is kept (Apache Iceberg), maintained and queried (DuckDB)
- `contracts`: what is collected, one file per dataset; everything else is derived from it

Ground nouns at the top: `settings`, `errors`, `logs`, `redaction`, `durable`, `scratch`, `background`, ...

Faces: `defs` (Dagster), `definitions`, `cli`, `operations` (the processes of `up`, its UI, backup)
and the `simulator` of a storefront.
"""
