"""`recsys-data doctor`: checks a deployment and says how to fix what is wrong."""

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.errors import UserError
from recsys_data.settings import Settings


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data doctor",
        "recsys-data doctor --json | jq '.[] | select(.state != \"ok\")'",
    ],
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def doctor(as_json: bool) -> None:
    """Check a deployment, and say for each finding what to do.

    Checks the machine, the contracts, the event log, the lake and the sources of snapshots, for a few seconds each,
    and changes nothing. Exit code 0 unless there is a problem (warnings do not count).
    """
    from recsys_data.cli.support.terminal import print_findings
    from recsys_data.monitoring.doctor import Finding, examine

    try:
        findings = list(examine(Settings.from_env()))
    except UserError as error:
        findings = [Finding("settings", "problem", str(error), "Fix the setting or file that the message names.")]
    print_findings("check", findings, as_json)
