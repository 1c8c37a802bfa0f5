"""The fault harness withstands a short run, and finds what comes of each protection that is switched off."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.faults


def harness(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--folder", str(folder), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
        check=False,
    )


def test_nothing_is_lost_or_doubled_whatever_is_killed(tmp_path: Path) -> None:
    done = harness(tmp_path, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults not withstood" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("protection", "case", "found"),
    [
        ("compare-and-set", "zombie", r"lost 0, doubled [1-9]"),
        ("deduplication", "redelivery", r"lost 0, doubled [1-9]"),
        ("fsync", "unsynced", r"(append|commit) before a sync of"),
    ],
)
def test_a_protection_that_is_switched_off_is_missed(tmp_path: Path, protection: str, case: str, found: str) -> None:
    done = harness(tmp_path, "--quick", "--only", case, "--sabotage", protection)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(found, done.stdout), done.stdout
