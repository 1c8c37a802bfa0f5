"""What impressions say of the features that they were ranked by: where they were read, and, of some visitors, which.

Parity is checked with it (`features/parity.py`). All answers of a visitor say their features or none does, so that a
sample shows whole histories.
"""

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


def properties_of(scores: "Scores | None", item_id: str, sampled: bool) -> dict[str, Any]:
    """What the impression of an item says of its features."""
    values = scores.features_of(item_id) if scores else None
    if scores is None or values is None:
        return {}
    return {READ: read_from(scores.read)} | ({FEATURES: values} if sampled else {})
