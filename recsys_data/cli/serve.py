"""`recsys-data serve`: the HTTP endpoint that recommends."""

import logging

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data serve --port 8090",
        """curl http://127.0.0.1:8090/v1/recommend -d '{"user_id": "u1", "n": 5}'""",
    ],
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 chooses a free port.")
def serve(host: str, port: int) -> None:
    """Answer which items to show, over HTTP, until Ctrl-C.

    Answers come from the registered models and the item catalogue of the lake, and are logged as impressions. Without
    RECSYS_DATA_WRITE_KEYS it only listens on this machine.
    """
    from recsys_data.ingestion.streaming.collector.server import serve_app
    from recsys_data.logs import configure
    from recsys_data.serving.app import create_app

    with opened() as platform:
        configure(platform.settings)
        # It says so whenever the lake is looked at, which is every second.
        logging.getLogger("pyiceberg").setLevel(logging.WARNING)
        app = create_app(platform.lake, platform.log, platform.settings)
        serve_app(app, "recommender", platform.settings, host, port)
