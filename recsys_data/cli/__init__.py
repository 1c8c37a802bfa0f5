"""The command line, `recsys-data`: one module per command.

A command imports what it needs when it runs, so that help is there at once.
"""

import os
import signal
import sys
from contextlib import suppress
from traceback import format_exception
from types import TracebackType

import click

from recsys_data.cli.backup import backup, restore
from recsys_data.cli.collect import collect
from recsys_data.cli.contract import contract
from recsys_data.cli.dead_letters import dead_letters
from recsys_data.cli.features import features
from recsys_data.cli.ingest import ingest
from recsys_data.cli.load import load
from recsys_data.cli.monitoring.alerts import alerts
from recsys_data.cli.monitoring.doctor import doctor
from recsys_data.cli.monitoring.drift import drift
from recsys_data.cli.monitoring.feedback import feedback
from recsys_data.cli.monitoring.status import status
from recsys_data.cli.monitoring.trace import trace
from recsys_data.cli.monitoring.verify import verify
from recsys_data.cli.online import online
from recsys_data.cli.recommendations import recommendations
from recsys_data.cli.serve import serve
from recsys_data.cli.simulate import simulate
from recsys_data.cli.snapshot import snapshot
from recsys_data.cli.sql import sql
from recsys_data.cli.support.commands import Commands
from recsys_data.cli.train import models, train
from recsys_data.cli.training_set import training_set
from recsys_data.cli.up import up
from recsys_data.errors import UserError
from recsys_data.redaction import redacted
from recsys_data.settings import Secrets, Settings

EXAMPLES = [
    "recsys-data up",
    "recsys-data load movielens ml-latest-small",
    "recsys-data ingest --until-empty",
    'recsys-data sql "SELECT type, count(*) FROM interactions GROUP BY ALL"',
    "recsys-data status",
]


@click.group(cls=Commands, examples=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recsys-data")
def cli() -> None:
    """The data backbone of a recommender system: events into one trustworthy lake.

    All state is in the folder RECSYS_DATA_DIR (default: ./data).
    """


_stream = (up, collect, simulate, load, ingest, snapshot, features, online)
_training = (training_set, train, models, serve, recommendations)
_watching = (status, dead_letters, trace, doctor, verify, alerts, drift, feedback)
for _command in (*_stream, *_training, *_watching, backup, restore, sql, contract):
    cli.add_command(_command)


def main() -> None:
    """Run the command line on the arguments of this process, and exit."""
    # Files hold what people did: only their owner and its group may read them, also those that children write.
    os.umask(os.umask(0o077) | 0o027)
    # A command cleans up also when a supervisor ends it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.excepthook = _show_traceback
    cli(prog_name="recsys-data")


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show the traceback of a defect without the secrets in it."""
    secrets = Secrets()
    with suppress(UserError):
        secrets = Settings.from_env().secrets
    sys.stderr.write(redacted("".join(format_exception(kind, error, trace)), secrets))
