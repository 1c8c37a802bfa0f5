"""What all commands share: examples in the help, and messages in place of tracebacks."""

from collections.abc import Sequence
from typing import Any

import click

from recsys_data.operations.platform import explain
from recsys_data.redaction import redacted

INTERRUPTED = 130


class Exampled(click.Command):
    """A command whose help ends with examples, as they are typed."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in self.examples))


class Commands(Exampled, click.Group):
    """A group that turns errors meant for users into messages. Any other exception is a defect and shows whole."""

    command_class = Exampled

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except Exception as error:
            # DuckDB turns a Ctrl-C that meets one of its statements into an error of its own.
            if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
                ctx.exit(INTERRUPTED)
            message = explain(error)
            if message is None:
                raise
            raise click.ClickException(redacted(message)) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            error.message += f" Expected one of {', '.join(self.commands)}."
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order they were added, not of the alphabet."""
        return list(self.commands)
