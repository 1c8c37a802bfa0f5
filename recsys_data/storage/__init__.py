"""Where data is kept: Apache Iceberg tables, one per contract, committed by compare-and-set."""
