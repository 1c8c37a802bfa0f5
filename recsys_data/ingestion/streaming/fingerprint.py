"""What the outcome of a line depends on: contracts, settings, code and libraries; written into every intent."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from recsys_data.contracts.model import Contract
from recsys_data.settings import Settings

CODE = ("recsys-data", "duckdb", "msgspec", "pyarrow")


def decided_by(contracts: Mapping[str, Contract], settings: Settings) -> dict[str, str]:
    """By name, the fingerprint or version of each thing that decisions about lines depend on."""
    digest = hashlib.sha256()
    for name in sorted(contracts):
        # Where a contract lies changes nothing.
        digest.update(repr(replace(contracts[name], path=Path())).encode())
    return {
        "contracts": digest.hexdigest()[:16],
        "RECSYS_DATA_FIRST_DAY": settings.first_day.isoformat(),
        "RECSYS_DATA_MAX_EVENT_BYTES": str(settings.max_event_bytes),
        **{name: version(name) for name in CODE},
    }
