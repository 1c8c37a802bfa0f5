"""Stores of every backend; services stand in within the process of the tests."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from recsys_data.serving.online_store import redis as redis_store
from recsys_data.serving.online_store.dynamodb import DynamoStore
from recsys_data.serving.online_store.lmdb import LmdbStore
from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data.serving.online_store.redis import RedisStore
from recsys_data_tests.support.servers import url_of

# Opens the store of the test once more.
OpenStore = Callable[[], OnlineStore]

DYNAMODB = "dynamodb://online?region=eu-west-1&create=true"


def redis_in_process(stack: ExitStack) -> str:
    """Stands in for a server; its URL."""
    import fakeredis

    server = fakeredis.FakeServer()

    class InProcess:
        @staticmethod
        def from_url(url: str, **options: object) -> fakeredis.FakeRedis:
            return fakeredis.FakeRedis.from_url(url, server=server, **options)

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(redis_store, "Redis", InProcess)
    return "redis://in-process/0"


def dynamodb_in_process(stack: ExitStack) -> str:
    """Stands in for DynamoDB; the URL of a table."""
    from moto import mock_aws

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stack.enter_context(mock_aws())
    return DYNAMODB


def opener(backend: str, folder: Path, stack: ExitStack) -> OpenStore:
    """Opens a store of a backend again and again."""
    if backend == "redis in process":
        url = redis_in_process(stack)
        return lambda: RedisStore(url)
    if backend == "redis":
        url = f"{url_of('RECSYS_TEST_REDIS_URL')}?prefix=test-{uuid4().hex}"
        stack.callback(lambda: RedisStore(url).clear())
        return lambda: RedisStore(url)
    if backend == "dynamodb":
        url = dynamodb_in_process(stack)
        return lambda: DynamoStore(url)
    return lambda: LmdbStore(folder / "online")
