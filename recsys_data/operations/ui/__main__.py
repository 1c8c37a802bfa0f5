"""Serves the UI until SIGTERM, and keeps the code server running that it reads the definitions from.

Data flow: Dagster's instance and workspace -> its web application -> `Protection` -> uvicorn.
"""

import threading
from functools import partial

import click
import uvicorn
from dagster import DagsterInstance
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__

from recsys_data.ingestion.first_day import first_partition_day
from recsys_data.logs import configure_command
from recsys_data.operations.local.dagster_home import dagster_home
from recsys_data.operations.platform import explain
from recsys_data.operations.ui.address import Addresses
from recsys_data.operations.ui.code_server import keep
from recsys_data.operations.ui.protection import Protection
from recsys_data.operations.ui.token import ui_token
from recsys_data.settings import Settings

# As `dagster-webserver` has them.
STATEMENT_MILLISECONDS = 15_000
POOL_SECONDS = 3600
POOL_OVERFLOW = 20
POLL_MILLISECONDS = 2000
# Browsers keep their websockets open.
STOP_SECONDS = 10


@click.command()
@click.option("--workspace", type=click.Path(dir_okay=False, exists=True), required=True, help="Dagster's file.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
def main(workspace: str, host: str, port: int) -> None:
    """Serve the Dagster UI to everybody who has the token of the state folder."""
    try:
        serve(workspace, host, port)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise click.ClickException(message) from None


def serve(workspace: str, host: str, port: int) -> None:
    """Return after SIGTERM.

    Raises:
        UserError: a setting or DAGSTER_HOME cannot be used.
    """
    settings = Settings.from_env()
    configure_command(settings)
    home = dagster_home(settings)
    with DagsterInstance.from_config(str(home)) as instance:
        instance.optimize_for_webserver(STATEMENT_MILLISECONDS, POOL_SECONDS, POOL_OVERFLOW)
        target = WorkspaceFileTarget([workspace])
        with WorkspaceProcessContext(instance, target, version=__version__) as context:
            for origin in target.create_origins():
                if isinstance(origin, GrpcServerCodeLocationOrigin):
                    arguments = (
                        origin.create_client(),
                        threading.Event().wait,
                        partial(first_partition_day, settings),
                        partial(context.refresh_code_location, origin.location_name),
                    )
                    threading.Thread(target=keep, args=arguments, name="code server", daemon=True).start()
            app = create_app_from_workspace_process_context(context, live_data_poll_rate=POLL_MILLISECONDS)
            addresses = Addresses.of(host, port, settings.further_ui_hosts)
            uvicorn.run(
                Protection(app, addresses, ui_token(settings.ui_token_file)),
                host=host,
                port=port,
                log_config=None,
                log_level="warning",
                # Its lines would hold the addresses, and one of them the token.
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )


if __name__ == "__main__":
    main()
