import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys_data.operations.local import guard
from recsys_data.operations.local import supervisor as module
from recsys_data.operations.local.dashboard import exit_report
from recsys_data.operations.local.supervisor import Child, Supervisor

IDLE = "import time; time.sleep(600)"
# Starts a process of its own, and says its id.
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {IDLE!r}])
print(child.pid, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "logs", os.environ) as found:
        yield found


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def python(supervisor: Supervisor, name: str, script: str) -> Child:
    return supervisor.start(name, ["-c", script])


def test_what_a_child_started_is_stopped_with_it(supervisor: Supervisor) -> None:
    child = python(supervisor, "parent", PARENT)
    wait_for(child.tail)
    grandchild = int(child.tail())
    assert lives(grandchild)
    supervisor.stop()
    assert child.exit_code == -signal.SIGTERM
    assert not lives(grandchild)


def test_what_a_dead_child_left_behind_is_stopped_too(supervisor: Supervisor) -> None:
    child = python(supervisor, "parent", PARENT)
    wait_for(child.tail)
    child.process.kill()
    wait_for(lambda: supervisor.dead() is child)
    begun = time.monotonic()
    supervisor.stop()
    assert not lives(int(child.tail()))
    # Nobody else takes note of its end, so that it would seem to run until the time was over.
    assert time.monotonic() - begun < guard.STOP_SECONDS / 2


def test_a_child_that_does_not_listen_is_killed(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "STOP_SECONDS", 0.5)
    child = python(supervisor, "stubborn", STUBBORN)
    wait_for(child.tail)
    supervisor.stop()
    assert child.exit_code == -signal.SIGKILL


def test_children_run_until_the_supervisor_is_left(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, os.environ)
    with pytest.raises(RuntimeError), supervisor:
        assert python(supervisor, "idle", IDLE).exit_code is None
        raise RuntimeError
    assert supervisor.children[0].exit_code == -signal.SIGTERM


def test_the_first_to_end_is_named_with_its_last_words(supervisor: Supervisor) -> None:
    python(supervisor, "idle", IDLE)
    assert supervisor.dead() is None
    python(supervisor, "broken", "print('hello'); import no_such_module")
    wait_for(supervisor.dead)
    child = supervisor.dead()
    assert child is not None
    text = exit_report(child)
    assert "The broken ended with exit code 1." in text
    assert "hello" in text and "No module named 'no_such_module'" in text
    assert str(child.log) in text


def test_a_signal_that_ended_a_child_is_named(supervisor: Supervisor) -> None:
    child = python(supervisor, "idle", IDLE)
    child.process.kill()
    wait_for(supervisor.dead)
    assert "was ended by signal 9" in exit_report(child)


def test_the_log_of_the_last_time_is_kept(tmp_path: Path) -> None:
    for word in ("first", "second"):
        with Supervisor(tmp_path, os.environ) as supervisor:
            child = python(supervisor, "one", f"print({word!r})")
            wait_for(supervisor.dead)
    assert child.log.read_text() == "second\n"
    assert (tmp_path / "one.log.1").read_text() == "first\n"


def test_a_log_does_not_grow_for_ever(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_LOG_BYTES", 1000)
    child = python(supervisor, "chatty", "import time\nwhile True: print('x' * 99, flush=True); time.sleep(0.001)")
    wait_for(lambda: child.log.stat().st_size > 2000)
    supervisor.limit_logs()
    assert child.log.with_suffix(".log.1").read_text().startswith("x")
    # It goes on at the new end, not behind a hole where the old end was.
    wait_for(lambda: child.log.stat().st_size > 500)
    assert child.log.read_bytes()[:1] == b"x"


def test_children_are_this_python_with_the_given_environment(tmp_path: Path) -> None:
    with Supervisor(tmp_path, {**os.environ, "WORD": "here"}) as supervisor:
        child = python(supervisor, "one", "import os, sys; print(sys.executable, os.environ['WORD'])")
        wait_for(supervisor.dead)
        assert child.tail() == f"{sys.executable} here"


SUPERVISED = """
import os, sys, time
from pathlib import Path
from recsys_data.operations.local.supervisor import Supervisor
with Supervisor(Path(sys.argv[1]), os.environ) as supervisor:
    for script in sys.argv[2:]:
        supervisor.start("one", ["-c", script])
    print("started", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_supervisor_left_behind_ends(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    command = [sys.executable, "-c", SUPERVISED, str(logs), PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        supervisor.stdout.readline()
        log = logs / "one.log"
        wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
        grandchild = int(log.read_text())
        assert lives(grandchild)
        supervisor.kill()
    wait_for(lambda: not lives(grandchild))


def test_the_guard_kills_what_ignores_being_asked_and_leaves_what_it_was_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True) as deaf,
        subprocess.Popen([sys.executable, "-c", IDLE], start_new_session=True) as other,
    ):
        assert deaf.stdout is not None
        deaf.stdout.readline()
        monkeypatch.setattr(guard, "STOP_SECONDS", 0.3)
        guard.stop([deaf.pid])
        assert deaf.wait() == -signal.SIGKILL
        assert other.poll() is None
        other.kill()
