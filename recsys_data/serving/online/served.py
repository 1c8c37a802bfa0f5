"""What impressions say of the features that they were ranked by: where they were read, and, of some visitors, which.

Parity is checked with it (`features/parity.py`). All answers of a visitor say their features or none does, so that a
sample shows whole histories.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from recsys_data.serving.online.reader import Read

if TYPE_CHECKING:
    from recsys_data.serving.rankers import Scores

READ, FEATURES = "read", "features"
# One visitor in so many.
SAMPLED = 20


def is_sampled(visitor: str | None) -> bool:
    """Whether the impressions of a visitor say their features."""
    if not visitor:
        return False
    digest = blake2b(visitor.encode("utf-8", "surrogatepass"), digest_size=8, person=b"parity").digest()
    return int.from_bytes(digest) % SAMPLED == 0


def read_from(read: Read) -> dict[str, Any]:
    """The positions that features were read at, and the moment whose values they are, in microseconds."""
    return {
        "moments": dict(read.moments),
        "positions": {
            name: {str(part): at for part, at in stream.positions.items()}
            for name, stream in read.position.streams.items()
        },
    }


def properties_of(scores: "Scores | None", sampled: bool) -> Callable[[str], dict[str, Any]]:
    """What the impression of each item of an answer says of its features."""
    if scores is None:
        return lambda item_id: {}
    read = {READ: read_from(scores.read)}

    def of(item_id: str) -> dict[str, Any]:
        if item_id not in scores.scores:
            return {}
        return read | ({FEATURES: scores.features_of(item_id)} if sampled else {})

    return of
