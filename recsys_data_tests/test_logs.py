"""Logs lead from a request to its rows, and no secret is in them."""

import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.logs import JsonFormatter, StderrHandler, audit, bound, configure, configure_command
from recsys_data.settings import Settings

logger = logging.getLogger("recsys_data.some.module")
KEY = "write-key-1234"
URL = "https://hooks.example.org/services/token"


class Stderr:
    """What is written to stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def read(self) -> str:
        """What was written since the last read."""
        return self._capsys.readouterr().err

    def lines(self) -> list[dict]:
        """The same, as JSON."""
        return [json.loads(line) for line in self.read().splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Stderr]:
    """Nobody else logs to it meanwhile; loggers are put back as they were."""
    loggers = [logging.getLogger(name) for name in ("", "recsys_data", audit.name)]
    kept = [(one, one.level, one.handlers[:]) for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING if one.name == "root" else logging.NOTSET)
        one.handlers = [handler for handler in one.handlers if not isinstance(handler, StderrHandler)]
    yield Stderr(capsys)
    for one, level, handlers in kept:
        one.setLevel(level)
        one.handlers = handlers


def settings(**given) -> Settings:
    return Settings(write_keys=f"short,{KEY}", alert_url=URL, **given)


def test_json_is_one_object_a_line_with_what_was_bound(stderr) -> None:
    configure(settings(log_format="json"), "recsys_data")
    with bound(run_id="r1"), bound(request_id="q1"):
        logger.info("Line\nbreak %d", 7, extra={"events": 3, "odd": {1: object}})
    logger.warning("Outside.")
    first, second = stderr.lines()
    assert first["message"] == "Line\nbreak 7"
    assert (first["level"], first["logger"], first["events"]) == ("info", "recsys_data.some.module", 3)
    assert (first["run_id"], first["request_id"]) == ("r1", "q1")
    assert first["ts"].endswith("Z") and list(first)[:4] == ["ts", "level", "logger", "message"]
    assert "run_id" not in second


def test_text_is_for_people_and_has_the_fields_too(stderr) -> None:
    configure(settings(), "recsys_data")
    logger.info("Published.", extra={"dataset": "items"})
    logger.debug("Not shown.")
    assert stderr.read().endswith("Z INFO Published. dataset=items\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_is_written_wherever_it_stands(stderr, form: str) -> None:
    configure(settings(log_format=form), "recsys_data")
    logger.info("The key %s of %s", KEY, URL, extra={"header": {"Authorization": "Basic c2VjcmV0OnNlY3JldA=="}})
    try:
        raise ValueError(f"postgresql+psycopg://shop:pass-word@db/shop with {KEY}; authorization: Bearer abc.def")
    except ValueError:
        logger.exception("It failed.")
    said = stderr.read()
    for secret in (KEY, URL, "pass-word", "c2VjcmV0OnNlY3JldA", "abc.def"):
        assert secret not in said
    assert "postgresql+psycopg://shop:***@db/shop" in said and "Traceback" in said
    if form == "json":
        assert "ValueError" in json.loads(said.splitlines()[1])["traceback"]


@given(st.text(), st.dictionaries(st.sampled_from(["a", "b"]), st.text()))
def test_whatever_is_said_is_one_line_of_json(message: str, extra: dict[str, str]) -> None:
    record = logging.makeLogRecord({"msg": f'"authorization": {message}\\"', "levelname": "INFO", **extra})
    line = JsonFormatter([KEY, 'with "quotes"']).format(record)
    assert "\n" not in line
    assert json.loads(line)["level"] == "info"


def test_the_trail_is_for_machines_or_for_those_who_look_closely(stderr) -> None:
    for how, said in (({}, False), ({"log_format": "json"}, True), ({"log_level": "debug"}, True)):
        configure(settings(**how), "recsys_data")
        audit.info("Appended.")
        assert ("Appended." in stderr.read()) is said


def test_commands_for_people_say_warnings_only_unless_json_is_asked_for(stderr) -> None:
    configure_command(settings())
    logger.info("Quiet.")
    logger.warning("Loud.")
    said = stderr.read()
    assert "Quiet." not in said and "Loud." in said
    configure_command(settings(log_format="json"))
    logger.info("For a machine.")
    assert "For a machine." in stderr.read()


def test_configuring_again_replaces(stderr) -> None:
    for _ in range(3):
        configure(settings(), "recsys_data")
    logger.info("Once.")
    assert stderr.read().count("Once.") == 1
