"""The check `parity` as Dagster sees it: served features against the lake, value by value."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.defs.markdown import table

if TYPE_CHECKING:
    from recsys_data.features.parity import Parity

DESCRIPTION = (
    "Feature values that answers of the last day used, of a sample of visitors, are those that the lake gives at the "
    "positions they were read at: identical, and within 1e-9 for sums that halve with time."
)


def result_of(found: "Parity") -> dg.AssetCheckResult:
    """The result of the check; it passes where no features were served."""
    metadata: dict[str, Any] = {
        "values compared": found.values,
        "values different": found.different,
        "not identical, within 1e-9": found.within,
        "positions": found.readings,
    }
    if found.differences:
        head = ["feature", "entity", "moment", "served", "computed"]
        rows = [[one.feature, one.entity, one.moment, one.served, one.computed] for one in found.differences]
        metadata["differences"] = dg.MetadataValue.md(table(head, rows))
    return dg.AssetCheckResult(passed=not found.different, metadata=metadata)
