"""Runs of Dagster whose process is asked to end, as happens whenever the platform is stopped."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def canceled_when_stopped(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Iterator[None]:
    """Let such a run count as canceled.

    Dagster takes an end that was not asked of itself for a failure, of which alerts tell.
    """
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        context.instance.report_run_canceling(context.run, "The process of this run was asked to end.")
        raise
