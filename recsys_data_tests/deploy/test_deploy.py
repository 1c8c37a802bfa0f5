"""The files in `deploy/` name commands, settings and metrics that there are, and are what their tools accept."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from recsys_data.cli import cli
from recsys_data.ingestion.streaming.collector.middleware import Metrics
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.settings import PREFIX, Settings
from recsys_data_tests.support.lakes import database

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
IMAGE = "registry.example.org/recsys-data"


def _containers() -> Iterator[dict[str, Any]]:
    for document in yaml.safe_load_all((DEPLOY / "kubernetes" / "recsys-data.yaml").read_text("utf-8")):
        if document["kind"] == "Deployment":
            yield from document["spec"]["template"]["spec"]["containers"]


def _commands() -> list[list[str]]:
    services = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"].values()
    compose = [shlex.split(one["command"]) for one in services if isinstance(one.get("command"), str)]
    units = [re.findall(r"^ExecStart=\S+/(.+)$", unit.read_text("utf-8"), re.MULTILINE) for unit in UNITS]
    return [*compose, *(one["args"] for one in _containers()), *(shlex.split(line) for one in units for line in one)]


def _accept(command: click.Command, arguments: list[str]) -> None:
    """Parse arguments as the command line would."""
    with command.make_context(command.name, list(arguments), resilient_parsing=False) as context:
        if isinstance(command, click.Group):
            _, child, rest = command.resolve_command(context, arguments)
            assert child is not None
            _accept(child, rest)


def test_every_command_of_ours_is_one_that_the_command_line_accepts() -> None:
    ours = [arguments for name, *arguments in _commands() if name == "recsys-data"]
    assert len(ours) >= 10
    for arguments in ours:
        _accept(cli, arguments)


def test_the_settings_file_has_settings_that_there_are() -> None:
    lines = (DEPLOY / "compose" / "settings.env").read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings = Settings.from_env({name: value for name, value in given.items() if name.startswith(PREFIX)})
    assert settings.event_log.startswith("kafka://")
    assert settings.warehouse.startswith("s3://")
    assert settings.catalog.startswith("postgresql://")


def test_the_dashboard_asks_for_metrics_that_are_served() -> None:
    served = {
        sample.name
        for metrics in (Metrics("collector"), _with_labels(ServingMetrics()))
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    panels = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text("utf-8"))["panels"]
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"\b(?:collector|serving)_\w+", target["expr"])
    }
    with_labels = {"collector_requests_total", "serving_requests_total"}
    assert len(asked) > 10
    assert asked - served - with_labels == set()


def _with_labels(metrics: ServingMetrics) -> ServingMetrics:
    """Metrics with labels have no sample before the first count."""
    metrics.answers.labels("home", "false").inc()
    metrics.unanswered.labels("late").inc()
    metrics.refresh_failures.labels("catalogue").inc()
    return metrics


def test_the_image_of_the_cluster_is_that_of_this_version() -> None:
    values = yaml.safe_load((DEPLOY / "kubernetes" / "dagster-values.yaml").read_text("utf-8"))
    (location,) = values["dagster-user-deployments"]["deployments"]
    assert location["image"] == {"repository": IMAGE, "tag": version("recsys-data"), "pullPolicy": "IfNotPresent"}
    assert {one["image"] for one in _containers()} == {f"{IMAGE}:{version('recsys-data')}"}


def test_no_container_may_become_root() -> None:
    for one in _containers():
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
    assert re.findall(r"^USER (\d+)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE) == ["10001"]


def _accepted_by(tool: str, *arguments: str, folder: Path = DEPLOY) -> None:
    found = shutil.which(tool, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{tool} is not installed; `.ci/run` installs it."
    done = subprocess.run([found, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_compose_accepts_its_file() -> None:
    _accepted_by("docker-compose", "--file", "compose.yaml", "config", "--quiet", folder=COMPOSE.parent)


@pytest.mark.integration
def test_the_schemas_of_kubernetes_accept_its_objects() -> None:
    _accepted_by("kubernetes-validate", "--strict", "kubernetes/recsys-data.yaml")


@pytest.mark.integration
def test_systemd_accepts_its_units(tmp_path: Path) -> None:
    for unit in UNITS:
        # The programs that units start must be there.
        (tmp_path / unit.name).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text("utf-8")))
    _accepted_by("systemd-analyze", "verify", "--man=no", *(str(one) for one in tmp_path.iterdir()))


@pytest.fixture
def database_url() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.mark.integration
@pytest.mark.parametrize("launcher", [None, "docker"])
def test_dagster_keeps_its_storage_in_postgresql(
    launcher: str | None, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", database_url.replace("://", f"+{_driver()}://"))
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "state"))
    config = yaml.safe_load((DEPLOY / "compose" / "dagster.yaml").read_text("utf-8").replace("/var/lib", str(tmp_path)))
    if launcher:
        config["run_launcher"] = _documented_launcher()
        monkeypatch.setenv("RECSYS_DATA_IMAGE", "recsys-data")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("interactions"))
        assert instance.run_launcher.__class__.__name__ == ("DockerRunLauncher" if launcher else "LivenessRunLauncher")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_latest_materialization_event(dg.AssetKey("interactions")) is not None


def _driver() -> str:
    """The driver that the settings file names for Dagster."""
    settings = (DEPLOY / "compose" / "settings.env").read_text("utf-8")
    (found,) = re.findall(r"^DAGSTER_POSTGRES_URL=postgresql\+(\w+)://", settings, re.MULTILINE)
    return found


def _documented_launcher() -> dict[str, Any]:
    page = (DEPLOY.parent / "docs" / "deployment.md").read_text("utf-8")
    return yaml.safe_load(re.findall(r"```yaml\n(run_launcher:\n.+?)```", page, re.DOTALL)[0])["run_launcher"]
