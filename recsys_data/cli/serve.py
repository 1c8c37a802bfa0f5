"""`recsys-data serve`: the HTTP endpoint that recommends."""

import logging

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.errors import Permanent, UserError
from recsys_data.operations.platform import opened
from recsys_data.settings import PREFIX, Settings, environment


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data serve --port 8090",
        "recsys-data serve --shop http://127.0.0.1:8080",
        """curl http://127.0.0.1:8090/v1/recommend -d '{"user_id": "u1", "n": 5}'""",
    ],
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 chooses a free port.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that answer.")
@click.option("--shop", metavar="URL", help="Show the demo shop, which sends events to the collector at this URL.")
@click.option("--shared", is_flag=True, hidden=True, help="Others listen on the same port: this is a worker.")
def serve(host: str, port: int, workers: int, shop: str | None, shared: bool) -> None:
    """Answer which items to show, over HTTP, until Ctrl-C.

    Answers come from the registered models and the item catalogue of the lake, and are logged as impressions. Without
    RECSYS_DATA_WRITE_KEYS it only listens on this machine. Each of several workers needs a partition of the event log.
    """
    if workers > 1:
        serve_by_many(Settings.from_env(), host, port, workers, shop)
        return
    from recsys_data.ingestion.streaming.collector.server import serve_app
    from recsys_data.logs import configure
    from recsys_data.serving.app import create_app
    from recsys_data.storage.iceberg.pyiceberg_patches import remembered_manifests

    with opened() as platform, remembered_manifests():
        configure(platform.settings)
        # It says so whenever the lake is looked at, which is every second.
        logging.getLogger("pyiceberg").setLevel(logging.WARNING)
        app = create_app(platform.lake, platform.log, platform.settings, shop=shop)
        serve_app(app, "recommender", platform.settings, host, port, shared)


def serve_by_many(settings: Settings, host: str, port: int, workers: int, shop: str | None = None) -> None:
    """Run workers that listen on one port until asked to stop, or until one ends; they log to the folder `logs`.

    Raises:
        UserError: the address cannot be used.
        Permanent: a worker ended.
    """
    from recsys_data.ingestion.streaming.collector.server import bind
    from recsys_data.operations.local.dashboard import exit_report
    from recsys_data.operations.local.stopping import Stop
    from recsys_data.operations.local.supervisor import Supervisor

    if not port:
        raise UserError("Several workers need a port that is known. Choose one with --port.")
    bind(host, port, keyless=not settings.keys).close()
    command = ["-m", "recsys_data.cli", "serve", "--host", host, "--port", str(port), "--shared"]
    command += ["--shop", shop] if shop else []
    own = environment() | {f"{PREFIX}DIR": str(settings.data_dir)}
    with Stop() as stop, Supervisor(settings.process_logs_dir, own) as supervisor:
        for number in range(1, workers + 1):
            supervisor.start(f"serving-{number}", command)
        click.echo(f"{workers} workers answer on http://{host}:{port}; they log to {settings.process_logs_dir}.")
        while not stop:
            if ended := supervisor.dead():
                raise Permanent(exit_report(ended))
            supervisor.limit_logs()
            stop.wait(1.0)
