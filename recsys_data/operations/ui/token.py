"""The token that opens the UI: a file of the state folder that only its owner can read."""

import os
import re
import secrets
from pathlib import Path
from tempfile import NamedTemporaryFile

from recsys_data.durable import sync_file

TOKEN_BYTES = 32
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
OTHERS = 0o077


def ui_token(path: Path) -> str:
    """The token in a file; a new one if there is none, or if other users could have read it.

    Delete the file and restart to revoke every cookie.
    """
    try:
        found = path.read_text("ascii").strip()
        if TOKEN.fullmatch(found) and not path.stat().st_mode & OTHERS:
            return found
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    token = secrets.token_urlsafe(TOKEN_BYTES)
    # Unlike other files of the state folder, this one is closed to the group from the moment it exists.
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    sync_file(path.parent)
    return token
