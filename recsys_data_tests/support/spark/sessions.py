"""Spark in this process, for tests: two threads, little memory, the jars that `pom.xml` lists."""

import os
from pathlib import Path

import pytest

JARS = "RECSYS_TEST_SPARK_JARS"
ENGINE = "local[2]"


def spark_settings() -> dict[str, str]:
    """The settings of an engine that the tests may use; it starts a JVM once for the process."""
    jars = os.environ.get(JARS)
    if not jars or not Path(jars).is_dir():
        pytest.fail(f"{JARS} names no folder of jars; see {Path(__file__).with_name('pom.xml')}.")
    return {"engine": ENGINE, "spark_jars": jars}
