"""The online store that the settings name; the only place that knows which backends there are."""

from recsys_data.errors import UserError
from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data.settings import Settings

EMBEDDED = "embedded"


def open_online_store(settings: Settings) -> OnlineStore:
    """Open the online store of `settings.online_store`.

    Raises:
        UserError: no backend of that name, or its URL makes no sense.
        Transient: it cannot be reached now.
    """
    # The scheme alone is shown: the rest of a URL may hold a password.
    scheme = settings.online_store.partition(":")[0]
    if settings.online_store == EMBEDDED:
        from recsys_data.serving.online_store.lmdb import LmdbStore

        return LmdbStore(settings.online_dir)
    if scheme in ("redis", "rediss", "valkey", "valkeys"):
        try:
            from recsys_data.serving.online_store.redis import RedisStore
        except ImportError as error:
            raise UserError(
                f"The online store {scheme}:// needs a package that is not installed ({error}). "
                "Install it: pip install 'recsys-data[redis]'."
            ) from None
        return RedisStore(settings.online_store)
    if scheme == "dynamodb":
        from recsys_data.serving.online_store.dynamodb import DynamoStore

        return DynamoStore(settings.online_store)
    raise UserError(
        f"Setting RECSYS_DATA_ONLINE_STORE begins with {scheme!r}: expected `embedded`, redis://, rediss://, "
        "valkey://, valkeys:// or dynamodb://. Change or unset it."
    )
