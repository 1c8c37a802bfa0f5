"""`recsys-data alerts`: whether alerts arrive."""

import time

import click

from recsys_data.cli.commands import Commands
from recsys_data.errors import Transient
from recsys_data.settings import Settings


@click.group(cls=Commands, examples=["recsys-data alerts test"])
def alerts() -> None:
    """Alerts of stale datasets, failed checks and failed jobs.

    The sensor `alerts_sensor` in Dagster sends them: to the log and, with RECSYS_DATA_ALERT_URL, to a webhook.
    """


@alerts.command(
    examples=[
        "recsys-data alerts test",
        "RECSYS_DATA_ALERT_URL=https://hooks.example.org/x RECSYS_DATA_ALERT_FORMAT=slack recsys-data alerts test",
    ]
)
def test() -> None:
    """Send a test to every place that is told.

    Ends with 1 if one did not take it.
    """
    from recsys_data.monitoring.alerts.incidents import Alert
    from recsys_data.monitoring.alerts.notifiers import sinks_of

    now = time.time()
    message = "This is a test of recsys-data: alerts arrive here."
    alert = Alert(f"test-{int(now * 1000)}", "test", "alerts", "recovered", "warning", message, now)
    settings = Settings.from_env()
    for sink in sinks_of(settings):
        try:
            sink.send([alert], "")
        except Transient as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"Sent to {sink.name}.")
    if not settings.alert_url:
        click.echo("Nobody is told: set RECSYS_DATA_ALERT_URL to a webhook (RECSYS_DATA_ALERT_FORMAT=slack for Slack).")
