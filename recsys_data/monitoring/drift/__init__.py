"""Drift: whether a day of a dataset differs from the days before it.

Data flow: contract -> what is compared (`columns`) -> counts by day and bin, in DuckDB (`counts`) -> distances of the
day and of the reference days among themselves (`measures`) -> a report (`report`), pictures (`plots`).
Run alone: `recsys-data drift --dataset interactions --day 2026-11-22`.
"""

from recsys_data.monitoring.drift.report import DriftReport, drift, watched

__all__ = ["DriftReport", "drift", "watched"]
