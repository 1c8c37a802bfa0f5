"""The online store in a table of Amazon DynamoDB, whose transactions are too small for a commit.

Each item holds the number of the batch that wrote it, and the value before that. One more item is the state: which
batch is committed, and the position. A writer takes the next number, writes its items, and writes the state last, on
the condition that nobody took a number since. A reader takes of each item the value of the newest batch that is
committed by the state it read first; what a writer that was killed left is never committed: its number is void.

Longer than other files, because the order of the calls is the idea, and the calls are short.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from secrets import token_bytes
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from recsys_data.errors import Permanent, PositionMoved, Transient, UserError
from recsys_data.redaction import redacted, redacted_url, secrets_of
from recsys_data.serving.online_store.dynamodb_items import State, plain, typed
from recsys_data.serving.online_store.long_keys import LongKeys
from recsys_data.serving.online_store.protocol import Change

STATE = b"state"
# At the beginning of each key; longer than the key of the state.
GENERATION_BYTES = 8
# A partition key has at most 2048 bytes.
LONG = LongKeys(2048 - GENERATION_BYTES)
READ_ITEMS = 100
WRITE_ITEMS = 25
TRANSACTION_ITEMS = 100
# Of the 4 MB of a transaction.
TRANSACTION_BYTES = 3_500_000
THREADS = 8
ATTEMPTS = 8
FIRST_PAUSE_SECONDS = 0.05
OPTIONS = ("region", "endpoint_url", "create")
LASTING = (
    "AccessDenied",
    "ExpiredToken",
    "InvalidSignature",
    "MissingAuthenticationToken",
    "UnrecognizedClient",
    "ValidationException",
)
BEGAN = "another writer began"
CONFLICT = "ConditionalCheckFailed"


class DynamoStore:
    """The store of a URL, `dynamodb://table?region=...&endpoint_url=...&create=true`.

    Credentials are those that boto3 finds. The table has the partition key `key` (binary); `create` makes it.

    Raises:
        UserError: the URL makes no sense, or the table is missing.
        Transient: it cannot be reached now.
    """

    def __init__(self, url: str) -> None:
        import boto3
        from botocore.config import Config

        self._shown = redacted_url(url)
        self._secrets = secrets_of(url)
        self._table, options = self._parsed(url)
        config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "max_attempts": 5})
        with self._explained():
            try:
                self._client: Any = boto3.Session(region_name=options.get("region")).client(
                    "dynamodb", endpoint_url=options.get("endpoint_url"), config=config
                )
            except ValueError as error:
                raise UserError(f"The URL {self._shown} of the online store makes no sense: {error}.") from None
            if options.get("create") == "true":
                self._create()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dynamodb")
        self.state()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        state = self.state()
        for attempt in range(ATTEMPTS):
            if state.generation is None:
                return [None] * len(keys)
            values, current = self._read(state, keys)
            # Without a commit meanwhile, what a batch that is not committed wrote, or is not there, was so before.
            if current or _basis(now := self.state()) == _basis(state):
                return values
            state = now
            _pause(attempt)
        raise Transient(f"The online store {self._shown} changes faster than it can be read. Try again.")

    def position(self) -> bytes | None:
        return self.state().position

    def commit(self, expected: bytes | None, position: bytes, changes: Iterable[Change]) -> None:
        """See `OnlineStore`; all changes are held in memory."""
        state = self.state()
        if state.position != expected:
            raise PositionMoved(
                f"The online store is at {state.position!r}, not at {expected!r}: another process wrote it. Read its "
                "position, and apply what follows that."
            )
        wanted = dict(changes)
        generation = state.generation or token_bytes(GENERATION_BYTES)
        batch = state.upcoming
        self._change_state(state, {"upcoming": batch + 1, "generation": generation}, BEGAN, upcoming=batch)
        deleted: list[bytes] = []
        left = list(wanted.items())
        while left:
            some, left = left[:READ_ITEMS], left[READ_ITEMS:]
            stored = {generation + LONG.stored(key): LONG.packed(key, value or b"")[1] for key, value in some}
            # Both are in the same order.
            values = dict(zip(stored, (value for _, value in some), strict=True))
            before = self._items(list(stored))
            writes = [
                self._write(state, batch, key, None if values[key] is None else packed, before.get(key))
                for key, packed in stored.items()
            ]
            self._transact(one for one in writes if one)
            deleted += [key for key, value in values.items() if value is None and key in before]
        void = (*state.void, *range(state.committed + 1, batch))
        self._change_state(state, {"committed": batch, "position": position, "void": void}, BEGAN, upcoming=batch + 1)
        list(self._threads.map(self._delete, deleted, itertools.repeat(batch)))

    @contextmanager
    def rebuild(self) -> Iterator["DynamoRebuild"]:
        new = DynamoRebuild(self, token_bytes(GENERATION_BYTES))
        self._update({"building": new.generation})
        try:
            yield new
        finally:
            new.discard()

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In no order; each value is one that was committed while it was read. It reads the whole table.

        Raises:
            Transient: the store was rebuilt meanwhile.
        """
        generation = self.state().generation
        if generation is None:
            return
        begins = generation + prefix[: LONG.prefix]
        for page in self._pages():
            # Read after the page, so that it knows the batches in it.
            state = self.state()
            if state.generation != generation:
                raise Transient(f"The online store {self._shown} was rebuilt during a scan. Scan again.")
            for item in page:
                if not item["key"].startswith(begins) or (packed := state.value(item)) is None:
                    continue
                key, value = LONG.original(item["key"][GENERATION_BYTES:], packed)
                if key.startswith(prefix):
                    yield key, value

    def clear(self) -> None:
        with self._explained():
            self._client.delete_item(TableName=self._table, Key={"key": {"B": STATE}})
        self.sweep()

    def close(self) -> None:
        self._threads.shutdown()
        self._client.close()

    # Below: one call, or one kind of calls, each.

    def state(self) -> State:
        """The state as it is now."""
        with self._explained():
            found = self._client.get_item(TableName=self._table, Key={"key": {"B": STATE}}, ConsistentRead=True)
        item = plain(found.get("Item") or {})
        item.pop("key", None)
        return State(**item)

    def _read(self, state: State, keys: Sequence[bytes]) -> tuple[list[bytes | None], bool]:
        """The values as of a state, and whether all are there and were written by its batches."""
        assert state.generation is not None
        stored = [state.generation + LONG.stored(key) for key in keys]
        items = self._items(list(dict.fromkeys(stored)))
        found = [state.value(items[key]) if key in items else None for key in stored]
        values = [
            packed if packed is None or LONG.fits(key) else LONG.original(LONG.stored(key), packed)[1]
            for key, packed in zip(keys, found, strict=True)
        ]
        return values, all(key in items and state.is_committed(items[key]["batch"]) for key in stored)

    def _items(self, stored: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        """The items of keys, without those that are not there."""
        found: dict[bytes, dict[str, Any]] = {}
        for begin in range(0, len(stored), READ_ITEMS):
            wanted: Any = [{"key": {"B": key}} for key in stored[begin : begin + READ_ITEMS]]
            for attempt in itertools.count():
                with self._explained():
                    answer = self._client.batch_get_item(
                        RequestItems={self._table: {"Keys": wanted, "ConsistentRead": True}}
                    )
                for one in answer["Responses"].get(self._table, ()):
                    item = plain(one)
                    found[item["key"]] = item
                wanted = answer["UnprocessedKeys"].get(self._table, {}).get("Keys")
                if not wanted:
                    break
                self._wait(attempt)
        return found

    def _write(
        self, state: State, batch: int, key: bytes, value: bytes | None, item: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """The change of one item, on the condition that nobody else changes it; None: there is nothing to change."""
        # A later batch may be committed, and what is before it is not what it wrote.
        if item and item["batch"] > batch:
            raise PositionMoved(
                f"The online store {self._shown}: {BEGAN}. Read its position, and apply what follows that."
            )
        before = state.value(item) if item else None
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(#key)"}
        names = {"#key": "key"}
        if item:
            names = {"#batch": "batch"}
            condition = {
                "ConditionExpression": "#batch = :seen",
                "ExpressionAttributeValues": {":seen": {"N": str(item["batch"])}},
            }
        shared = {"TableName": self._table, "ExpressionAttributeNames": names, **condition}
        if value is None and before is None:
            return {"Delete": {"Key": {"key": {"B": key}}, **shared}} if item else None
        new = {
            "key": key,
            "batch": batch,
            "value": value,
            "before": before,
        }
        return {"Put": {"Item": typed(new), **shared}}

    def _transact(self, writes: Iterable[dict[str, Any]]) -> None:
        left = list(writes)
        while left:
            size = count = 0
            for one in left[:TRANSACTION_ITEMS]:
                size += sum(len(value.get("B", b"")) for value in one.get("Put", {}).get("Item", {}).values())
                if count and size > TRANSACTION_BYTES:
                    break
                count += 1
            some, left = left[:count], left[count:]
            for attempt in itertools.count():
                try:
                    with self._explained():
                        self._client.transact_write_items(TransactItems=some)
                    break
                except Busy:
                    self._wait(attempt)

    def _change_state(self, state: State, values: Mapping[str, Any], conflict: str, upcoming: int) -> None:
        """Change the state, on the condition that nobody took a number since, and nobody published a rebuild."""
        conditions = {"upcoming": upcoming if upcoming > 1 else None, "position": state.position}
        self._update(values, conditions, conflict)

    def _update(
        self,
        values: Mapping[str, Any],
        conditions: Mapping[str, Any] | None = None,
        conflict: str = "",
        expressions: Mapping[str, str] | None = None,
    ) -> None:
        """Set attributes of the state, or remove those that are None, if others have values."""
        conditions = conditions or {}
        expressions = expressions or {}
        names = {f"#{name}": name for name in (*values, *conditions, *expressions)}
        sets = [f"#{name} = :{name}" for name, value in values.items() if value not in (None, ())]
        sets += [f"#{name} = {expression}" for name, expression in expressions.items()]
        removes = [f"#{name}" for name, value in values.items() if value in (None, ())]
        terms = [
            f"attribute_not_exists(#{name})" if value is None else f"#{name} = :if_{name}"
            for name, value in conditions.items()
        ]
        given = {f":{name}": value for name, value in values.items() if value not in (None, ())}
        given |= {f":if_{name}": value for name, value in conditions.items() if value is not None}
        if expressions:
            names["#upcoming"] = "upcoming"
            given[":one"] = 1
        parts = [f"SET {', '.join(sets)}"] * bool(sets) + [f"REMOVE {', '.join(removes)}"] * bool(removes)
        request: dict[str, Any] = {
            "TableName": self._table,
            "Key": {"key": {"B": STATE}},
            "UpdateExpression": " ".join(parts),
            "ExpressionAttributeNames": names,
        }
        if given:
            request["ExpressionAttributeValues"] = typed(given)
        if terms:
            request["ConditionExpression"] = " AND ".join(terms)
        try:
            with self._explained():
                self._client.update_item(**request)
        except PositionMoved:
            raise PositionMoved(
                f"The online store {self._shown}: {conflict}. Read its position, and apply what follows that."
            ) from None

    def _delete(self, stored: bytes, batch: int) -> None:
        """Remove an item whose value a committed batch deleted."""
        try:
            with self._explained():
                self._client.delete_item(
                    TableName=self._table,
                    Key={"key": {"B": stored}},
                    ConditionExpression="#batch = :batch",
                    ExpressionAttributeNames={"#batch": "batch"},
                    ExpressionAttributeValues={":batch": {"N": str(batch)}},
                )
        except PositionMoved:
            # The next batch writes it already, and has noted that it was deleted.
            return

    def put_all(self, items: Sequence[dict[str, Any]], kind: str = "PutRequest") -> None:
        """Write or delete many items with different keys, without a condition."""
        requests = [{kind: one} for one in items]
        chunks = [requests[begin : begin + WRITE_ITEMS] for begin in range(0, len(requests), WRITE_ITEMS)]
        list(self._threads.map(self._put_chunk, chunks))

    def _put_chunk(self, requests: list[dict[str, Any]]) -> None:
        for attempt in itertools.count():
            with self._explained():
                answer = self._client.batch_write_item(RequestItems={self._table: requests})
            requests = answer["UnprocessedItems"].get(self._table)
            if not requests:
                return
            self._wait(attempt)

    def _pages(self, only_keys: bool = False) -> Iterator[list[dict[str, Any]]]:
        """Every item of the table; a filter of the scan would cost as much."""
        request: dict[str, Any] = {"TableName": self._table, "ConsistentRead": True}
        if only_keys:
            request |= {"ProjectionExpression": "#key", "ExpressionAttributeNames": {"#key": "key"}}
        while True:
            with self._explained():
                answer = self._client.scan(**request)
            yield [plain(one) for one in answer["Items"]]
            if not (last := answer.get("LastEvaluatedKey")):
                return
            request["ExclusiveStartKey"] = last

    def sweep(self) -> None:
        """Remove every item of a generation that is neither current nor filled by the newest rebuild."""
        for page in self._pages(only_keys=True):
            state = self.state()
            kept = {state.generation, state.building}
            keys = [item["key"] for item in page]
            self.put_all(
                [{"Key": {"key": {"B": key}}} for key in keys if key != STATE and key[:GENERATION_BYTES] not in kept],
                "DeleteRequest",
            )

    def _create(self) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client.create_table(
                TableName=self._table,
                KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "B"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUseException":
                raise
        self._client.get_waiter("table_exists").wait(
            TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )

    def _parsed(self, url: str) -> tuple[str, dict[str, str]]:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        wrong = sorted(set(options) - set(OPTIONS))
        if "@" in parts.netloc or "@" in options.get("endpoint_url", ""):
            raise UserError(
                f"The URL {self._shown} of the online store holds a login. Take it out, and set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY in the environment."
            )
        if not parts.netloc or parts.path.strip("/") or wrong or options.get("create", "true") not in ("true", "false"):
            raise UserError(
                f"The URL {self._shown} of the online store makes no sense. Expected "
                f"dynamodb://TABLE?region=eu-west-1, and of options {', '.join(OPTIONS)} (true)."
            )
        return parts.netloc, options

    def _wait(self, attempt: int) -> None:
        """Before the next try, unless these were enough."""
        if attempt >= ATTEMPTS:
            raise Transient(f"The online store {self._shown} takes no more now (throttled, or busy). Try again.")
        _pause(attempt)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

        try:
            yield
        except ClientError as error:
            raise self._explanation(error) from None
        except (NoCredentialsError, NoRegionError) as error:
            raise UserError(
                f"The online store {self._shown} cannot be reached: {error} Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or a profile, and `region` in the URL or AWS_REGION."
            ) from None
        except BotoCoreError as error:
            raise Transient(
                f"The online store {self._shown} cannot be reached: {redacted(str(error), self._secrets)}."
            ) from None

    def _explanation(self, error: Any) -> Exception:
        code = error.response["Error"]["Code"]
        text = redacted(str(error), self._secrets)
        reasons = {one.get("Code") for one in error.response.get("CancellationReasons") or ()} - {"None", None}
        if code.startswith(CONFLICT) or CONFLICT in reasons:
            return PositionMoved(
                f"The online store {self._shown}: another writer changed an item. Read its position, and apply what "
                "follows that."
            )
        if reasons and not any(reason.startswith("Validation") for reason in reasons):
            return Busy(f"The online store {self._shown} is busy: {text}. Try again.")
        if code == "ResourceNotFoundException":
            return UserError(
                f"The online store {self._shown}: there is no table {self._table}. Make one with the partition key "
                "`key` of type binary, or add the option create=true to the URL."
            )
        if code.startswith(LASTING) or reasons:
            return Permanent(f"The online store {self._shown} refuses: {text}. A value may have 200 kB.")
        return Transient(f"The online store {self._shown} cannot be used now: {text}.")


class Busy(Transient):
    """A transaction met another one, or was throttled."""


class DynamoRebuild:
    """A generation of its own; see `Rebuild`."""

    def __init__(self, store: DynamoStore, generation: bytes) -> None:
        self._store = store
        self.generation = generation

    def put(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        left = iter(values)
        while some := dict(itertools.islice(left, WRITE_ITEMS * THREADS)):
            self._check()
            items = []
            for key, value in some.items():
                stored, packed = LONG.packed(key, value)
                items.append({"Item": typed({"key": self.generation + stored, "batch": 0, "value": packed})})
            self._store.put_all(items)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._store._read(State(generation=self.generation), keys)[0]

    def publish(self, position: bytes) -> None:
        # The number is taken, so that a batch that is being written is refused.
        self._store._update(
            {"generation": self.generation, "position": position, "building": None, "void": None},
            {"building": self.generation},
            "the rebuild is void: another one began",
            {"committed": "if_not_exists(#upcoming, :one)", "upcoming": "if_not_exists(#upcoming, :one) + :one"},
        )
        self._store.sweep()

    def discard(self) -> None:
        """Remove it, unless it was published or another rebuild began."""
        try:
            self._store._update({"building": None}, {"building": self.generation})
        except PositionMoved:
            return
        self._store.sweep()

    def _check(self) -> None:
        if self._store.state().building != self.generation:
            raise PositionMoved(
                "The rebuild of the online store is void: it was published, or another one began. Begin again if the "
                "store is not as it should be."
            )


def _basis(state: State) -> tuple[bytes | None, int]:
    return state.generation, state.committed


def _pause(attempt: int) -> None:
    time.sleep(min(FIRST_PAUSE_SECONDS * 2**attempt, 2.0))
