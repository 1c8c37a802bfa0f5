"""Folders of one day's state, as other systems deliver them: whole, or not there.

Data flow: a writer, `with whole_file(FOLDER/2026-11-22/items.jsonl) as file` -> a hidden folder beside the
day's -> renamed. Who lists the days never meets half a state, and writing a day again replaces its file.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EEXIST, ENOTEMPTY
from pathlib import Path
from typing import BinaryIO

from recsys_data.durable import sync_file


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file of a day's folder; it appears, on the disk for good, when the block ends without an error.

    Files of other names in that folder stay: a day may have several deliveries.
    """
    folder = path.parent
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    hidden.mkdir(parents=True, exist_ok=True)
    try:
        with (hidden / path.name).open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        sync_file(hidden)
        try:
            hidden.rename(folder)
        except OSError as error:
            if error.errno not in (ENOTEMPTY, EEXIST):
                raise
            (hidden / path.name).replace(path)
            sync_file(folder)
        sync_file(folder.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
