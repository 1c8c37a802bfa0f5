"""The datasets of the contracts, training sets and models as a Dagster component.

Data flow: contracts (the built-in ones and the folder of RECSYS_DATA_CONTRACTS) -> `dg.Definitions`.
Run alone: `dg list defs`, `dg list components`.
"""

from collections.abc import Mapping

import dagster as dg

from recsys_data.contracts import load_contracts
from recsys_data.contracts.model import Contract
from recsys_data.defs.features import views
from recsys_data.defs.ingestion import dead_letters, snapshots, streaming
from recsys_data.defs.monitoring import check_job, openlineage
from recsys_data.defs.monitoring.checks import checks_of
from recsys_data.defs.monitoring.partitions import partitions_sensor
from recsys_data.defs.serving import recommendations
from recsys_data.defs.training import models, sets
from recsys_data.settings import Settings


class ContractDatasets(dg.Component):
    """Every data contract as assets.

    Streams are read from the event log by one op. A snapshot dataset has an op, a schedule, rejected rows, a history.
    To add a dataset, put an ODCS file into the folder that RECSYS_DATA_CONTRACTS names; nothing is registered here.
    """

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        settings = Settings.from_env()
        return definitions(load_contracts(*settings.contract_dirs), settings)


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """What Dagster runs and shows of these contracts."""
    checks = [check for contract in contracts.values() for check in checks_of(contract)]
    tables = [name for name, contract in contracts.items() if contract.is_asset]
    return dg.Definitions.merge(
        streaming.definitions(contracts, settings),
        snapshots.definitions(contracts, settings),
        views.definitions(contracts, settings),
        sets.definitions(contracts, settings),
        models.definitions(contracts, settings),
        recommendations.definitions(contracts, settings),
        openlineage.definitions(),
        # Those with a condition of their own run when it says so, once a day.
        check_job.definitions([one for one in checks if contracts[one.asset].is_stream and one.condition is None]),
        dg.Definitions(
            asset_checks=[check.definition() for check in checks],
            jobs=[dead_letters.replay_dead_letters],
            sensors=[partitions_sensor(tables)],
        ),
    )
