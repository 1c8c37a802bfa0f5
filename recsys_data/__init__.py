"""The data backbone of a recommender system.

Folders are the stages of the journey, and imports go one way:

- `contracts`: what is collected, one file per dataset; everything else is derived from it
- `sources`: where it comes from (databases, files, public data sets, the storefront simulator)
- `ingestion`: how it gets in: the stream (collector -> event log -> micro-batches), and the batch side
  (staging -> snapshot -> history)
- `lake`: where it is kept (Apache Iceberg), looked after and queried (DuckDB)
- `monitoring`: whether it is fresh, balanced and healthy
- `definitions`, `resources`, `cli`: how people run it
"""
