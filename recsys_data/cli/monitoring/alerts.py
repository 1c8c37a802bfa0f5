"""`recsys-data alerts`: sends a test alert."""

import time

import click

from recsys_data.cli.support.commands import Commands
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
    """Send a test alert to the log and to RECSYS_DATA_ALERT_URL.

    Exit code 1 if it was not accepted.
    """
    from recsys_data.monitoring.alerts.incidents import Alert
    from recsys_data.monitoring.alerts.notifiers import notifiers_of

    now = time.time()
    message = "This is a test of recsys-data: alerts arrive here."
    alert = Alert(f"test-{int(now * 1000)}", "test", "alerts", "recovered", "warning", message, now)
    settings = Settings.from_env()
    for notifier in notifiers_of(settings):
        try:
            notifier.send([alert], "")
        except Transient as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"Sent to {notifier.name}.")
    if not settings.alert_url:
        click.echo(
            "Alerts are only logged. To receive them, set RECSYS_DATA_ALERT_URL to a webhook (for Slack also "
            "RECSYS_DATA_ALERT_FORMAT=slack)."
        )
