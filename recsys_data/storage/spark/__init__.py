"""Apache Spark over the tables of the lake."""
