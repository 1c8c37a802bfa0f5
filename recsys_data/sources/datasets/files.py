"""Files as they come, plain or gzipped: opened, cut into lines, and with errors that name the file."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_data.errors import UserError

GZIP = b"\x1f\x8b"
BinaryFile = gzip.GzipFile | io.BufferedReader
BLOCK_BYTES = 4 * 1024 * 1024
# Far above any event. Without it a file that has no line ends would be read into memory whole.
MAX_LINE_BYTES = 16 * 1024 * 1024


def open_file(path: Path) -> BinaryFile:
    """Open for reading; what is named `.gz`, or begins like it, is unpacked."""
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP or path.suffix == ".gz"
    return gzip.open(path, "rb") if zipped else path.open("rb")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say which file it was when reading fails.

    Raises:
        UserError: in place of an error of the operating system or of gzip.
    """
    try:
        yield
    except EOFError:
        raise UserError(
            f"{path} ends in the middle of its gzip data; a download or copy was cut short. Fetch it again."
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a sound gzip file: {error}. Fetch it again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def line_batches(path: Path) -> Iterator[list[bytes]]:
    r"""The lines of a file, in order and without their `\n` or `\r\n`; empty lines are left out.

    The last line needs no line end.

    Raises:
        UserError: the file cannot be read, or a line has more than `MAX_LINE_BYTES`.
    """
    with explained(path), open_file(path) as file:
        rest = b""
        while block := file.read(BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise UserError(
                    f"{path} has a line of more than {MAX_LINE_BYTES} bytes. Expected one JSON object a line."
                )
            if lines := _without_ends(whole):
                yield lines
        if lines := _without_ends([rest]):
            yield lines


def _without_ends(lines: list[bytes]) -> list[bytes]:
    return [bare for line in lines if (bare := line.removesuffix(b"\r"))]
