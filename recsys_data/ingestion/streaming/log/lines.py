"""What every backend demands of the lines that are appended."""

from collections.abc import Sequence

from recsys_data.errors import Permanent


def joined(lines: Sequence[bytes]) -> bytes:
    """The lines back to back, each with its newline.

    Raises:
        Permanent: one holds a newline byte.
    """
    data = b"\n".join(lines) + b"\n"
    if data.count(b"\n") != len(lines):
        which = next(number for number, line in enumerate(lines, 1) if b"\n" in line)
        raise Permanent(
            f"Line {which} of the {len(lines)} to append holds a newline byte, but one line is one "
            "event. Write it without line breaks (within a JSON string as \\n). Nothing was appended."
        )
    return data
