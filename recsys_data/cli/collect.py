"""`recsys-data collect`: the HTTP endpoint that receives events."""

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened_log
from recsys_data.settings import Settings


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data collect --port 8080",
        "curl http://127.0.0.1:8080/v1/events -d \\",
        '  \'{"event_id":"1","type":"view","user_id":"u1","item_id":"i1","event_ts":"2026-11-22T10:00:00Z"}\'',
    ],
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 chooses a free port.")
def collect(host: str, port: int) -> None:
    """Receive events over HTTP until Ctrl-C.

    Accepted events are durable in the event log. Accepts the Segment HTTP tracking API (/v1/batch, /v1/track ...) and
    native events at /v1/events. Without RECSYS_DATA_WRITE_KEYS it only listens on this machine.
    """
    from recsys_data.ingestion.streaming.collector.server import serve
    from recsys_data.logs import configure

    settings = Settings.from_env()
    configure(settings)
    with opened_log(settings) as log:
        serve(log, settings, host, port)
