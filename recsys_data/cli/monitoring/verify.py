"""`recsys-data verify`: checks by the rows themselves that no event is lost or doubled."""

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data verify",
        "recsys-data verify --deep --json | jq '.[] | select(.state != \"ok\")'",
    ],
)
@click.option("--deep", is_flag=True, help="Also read all data files with their checksums, and all lines of the log.")
@click.option("--accept-lost", is_flag=True, help="Accept lines that the log has lost: report them no more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def verify(deep: bool, accept_lost: bool, as_json: bool) -> None:
    """Read all rows of the stream tables and compare them with ledgers, deduplication index and log.

    Exit code 0 if nothing is lost or doubled. Takes as long as reading the tables, with --deep also the log.
    """
    from rich.console import Console

    from recsys_data.cli.support.terminal import print_findings
    from recsys_data.ingestion.streaming.positions import main_dataset
    from recsys_data.monitoring.verification import verify as verify_lake
    from recsys_data.storage.commit import accept_losses

    with opened() as platform:
        if accept_lost:
            name = main_dataset(platform.contracts)
            ranges = accept_losses(platform.lake.table(name)) if platform.lake.exists(name) else 0
            click.echo(f"Accepted {ranges} lost ranges.", err=True)
        with Console(stderr=True).status("verifying") as shown:
            findings = list(
                verify_lake(
                    platform.lake, platform.log, platform.settings, deep, lambda step: shown.update(f"verifying {step}")
                )
            )
    print_findings("claim", findings, as_json)
