"""Training sets and models by the command line: what is printed, and messages in place of tracebacks."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from recsys_data.cli import cli
from recsys_data.settings import Settings
from recsys_data_tests.support.contract_files import write

Run = Callable[..., Result]
START = datetime(2026, 1, 10, tzinfo=UTC)
SHOWN = {
    "name": "shown",
    "rows": "impressions",
    "labels": [{"type": "click"}],
    "window": "1h",
    "maturity": "1h",
    "features": ["item_engagement"],
    "split": {"by": "time", "validation": 0.1, "test": 0.2},
}

CLICKS = {"name": "clicks", "rows": "outcomes", "labels": [{"type": "click"}], "maturity": "0s"}


@dataclass(frozen=True)
class Deployment:
    """A state folder with events, sets that were built and models that were trained, and what was printed of them."""

    settings: Settings
    printed: dict[str, Result]


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def environment(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("RECSYS_DATA_DIR", str(folder / "state"))
    patch.setenv("RECSYS_DATA_CONTRACTS", str(folder / "contracts"))


def add_set(contracts: Path, **declared: object) -> None:
    folder = contracts / "training_sets"
    folder.mkdir(exist_ok=True)
    (folder / f"{declared['name']}.yaml").write_text(json.dumps(declared))


def load_events(folder: Path, first: int, last: int) -> None:
    """Visitors who are shown items, and click some of them."""
    lines = []
    for n in range(first, last):
        for minutes, kind in [(0, "impression"), *([(5, "click")] if n % 2 else [])]:
            at = (START + timedelta(minutes=10 * n + minutes)).isoformat()
            event = {"event_id": f"{kind}{n}", "type": kind, "event_ts": at, "session_id": f"s{n}"}
            lines.append(json.dumps(event | {"user_id": f"u{n % 13}", "item_id": f"i{n * n % 31}"}) + "\n")
    (folder / "events.jsonl").write_text("".join(lines))
    invoke("load", "events", str(folder / "events.jsonl"))
    invoke("ingest", "--until-empty")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    with pytest.MonkeyPatch.context() as patch:
        environment(patch, folder)
        for declared in (SHOWN, CLICKS):
            add_set(write(folder / "contracts"), **declared)
        load_events(folder, 0, 150)
        printed = {
            "build": invoke("training-set", "build", "next_items", "shown"),
            "train": invoke("train", "popular"),
            "challenge": invoke("train", "random", "--version", "1", "--no-promote"),
        }
        yield Deployment(Settings.from_env(), printed)


@pytest.fixture
def built(deployment: Deployment, run: Run, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of the deployment, which commands see too."""
    environment(monkeypatch, deployment.settings.data_dir.parent)
    return deployment.settings


@pytest.fixture
def contracts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of contracts of an empty deployment."""
    environment(monkeypatch, tmp_path)
    return write(tmp_path / "contracts")


def test_a_build_prints_its_version_and_its_files(deployment: Deployment) -> None:
    output = deployment.printed["build"].stdout
    folder = deployment.settings.training_dir / "sets" / "next_items" / "1"
    assert f"next_items 1: built, in {folder}" in output
    for name in ("test.parquet", "train.parquet"):
        digest = json.loads((folder / "manifest.json").read_text())["files"][name]["sha256"]
        assert any(line.startswith(name) and line.endswith(digest[:16]) for line in output.splitlines())


def test_a_build_without_anything_new_says_so(run: Run, built: Settings) -> None:
    assert "next_items 1: unchanged" in run("training-set", "build", "next_items").stdout


def test_a_set_whose_features_know_nothing_is_pointed_out(run: Run, deployment: Deployment, built: Settings) -> None:
    assert "No feature knows anything of any row" in deployment.printed["build"].stderr
    assert "--known event_time" in deployment.printed["build"].stderr
    again = run("training-set", "build", "shown", "--known", "event_time")
    assert "shown 2: built" in again.stdout
    assert "No feature knows" not in again.stderr


def test_a_cutoff_is_a_day_or_a_moment(run: Run, built: Settings) -> None:
    build = ("training-set", "build", "clicks", "--known", "event_time", "--cutoff")
    for cutoff, rows in (("2026-01-11", 72), ("2026-01-10T12:00:00", 36)):
        run(*build, cutoff)
        made = json.loads(run("training-set", "show", "clicks", "--json").stdout)
        assert (made["counts"]["rows"], made["cutoff"][:19]) == (rows, f"{cutoff}T00:00:00"[:19])
    assert "does not match the formats" in run("training-set", "build", "--cutoff", "yesterday", code=2).stderr


def test_events_that_were_stored_after_the_cutoff_are_pointed_out(run: Run, built: Settings) -> None:
    error = run("training-set", "build", "clicks", "--cutoff", "2026-01-11").stderr
    assert "No row was known by the cutoff: by known: commit an event counts since it was stored." in error


def test_sets_are_listed_with_their_newest_version(run: Run, built: Settings) -> None:
    lines = run("training-set", "list").stdout.splitlines()
    assert lines[0].split()[:2] == ["training", "set"]
    assert {line.split()[0] for line in lines[2:]} == {"clicks", "impressions", "next_items", "shown"}
    listed = {one["name"]: one for one in json.loads(run("training-set", "list", "--json").stdout)}
    assert listed["impressions"]["versions"] == []
    assert 1 in listed["next_items"]["versions"] and listed["next_items"]["built_at"]
    assert listed["shown"]["rows"]["train"] > 0
    assert listed["shown"]["file"].endswith("training_sets/shown.yaml")


def test_a_damaged_version_hides_no_other_set_from_the_list(run: Run, built: Settings) -> None:
    path = next((built.training_parts[0] / "shown").glob("*/manifest.json"))
    whole = path.read_bytes()
    path.write_text("{")
    try:
        listed = run("training-set", "list")
    finally:
        path.write_bytes(whole)
    assert "manifest.json is damaged" in listed.stderr
    assert {"next_items", "shown"} <= {line.split()[0] for line in listed.stdout.splitlines()}


def test_a_version_is_shown_with_what_it_was_built_from(run: Run, built: Settings) -> None:
    output = run("training-set", "show", "shown", "--version", "1").stdout
    for text in ("shown 1: built at", "impressions_followed", "interactions", "item_engagement", "train.parquet"):
        assert text in output
    manifest = json.loads(run("training-set", "show", "shown", "--version", "1", "--json").stdout)
    assert manifest["sources"]["interactions"]["rows"] == 225
    assert manifest["counts"]["rows"] == sum(one["rows"] for one in manifest["files"].values())


def test_files_that_were_removed_are_rebuilt(run: Run, built: Settings) -> None:
    path = built.training_dir / "sets" / "shown" / "1" / "train.parquet"
    was = path.read_bytes()
    path.unlink()
    assert "shown 1: rebuilt, byte for byte" in run("training-set", "rebuild", "shown", "--version", "1").stdout
    assert path.read_bytes() == was


def test_an_export_is_a_new_folder_and_says_what_is_left_out(run: Run, built: Settings, tmp_path: Path) -> None:
    arguments = ("training-set", "export", "next_items", "--version", "1", "--format", "recbole", "--out")
    exported = run(*arguments, str(tmp_path / "out"))
    assert f"next_items 1: exported to {tmp_path / 'out'}" in exported.stdout
    assert "next_items/next_items.train.inter" in exported.stdout
    assert (tmp_path / "out" / "next_items" / "next_items.train.inter").is_file()
    assert "is there already" in run(*arguments, str(tmp_path / "out"), code=1).stderr
    shown = run("training-set", "export", "shown", "--format", "personalize", "--out", str(tmp_path / "shown"))
    assert "Left out" in shown.stderr and "export.json says why" in shown.stderr


def test_training_prints_measures_beside_references_and_by_segment(deployment: Deployment) -> None:
    output = deployment.printed["train"].stdout
    head, first, second = [
        line.split() for line in output.splitlines() if line.split()[:1] in (["model"], ["popular"], ["random"])
    ][:3]
    assert (head[:2], first[0], second[0]) == (["model", "nDCG@10"], "popular", "random")
    for text in ("popular by segment", "visitor known", "item known", "Trained on next_items 1"):
        assert text in output
    assert "Registered as next_items 1: champion." in output
    output = deployment.printed["challenge"].stdout
    assert "nDCG@10 less that of the champion: " in output
    assert "Registered as next_items 2: challenger." in output


def test_models_are_listed_and_promoted(run: Run, built: Settings) -> None:
    def aliases() -> dict[int, str | None]:
        return {one["version"]: one["alias"] for one in json.loads(run("models", "--json").stdout)}

    rows = [line.split() for line in run("models").stdout.splitlines()[2:]]
    assert [row[1:4] for row in rows] == [["1", "champion", "popular"], ["2", "challenger", "random"]]
    assert aliases() == {1: "champion", 2: "challenger"}
    assert "next_items" in run("models", "--promote", "next_items", "2").stdout
    assert aliases() == {1: None, 2: "champion"}
    run("models", "--promote", "next_items", "1")
    assert aliases() == {1: "champion", 2: None}


@pytest.mark.parametrize(
    "command",
    [
        *(("training-set", one) for one in ("build", "list", "show", "rebuild", "export")),
        ("train",),
        ("models",),
    ],
)
def test_help_ends_with_examples(run: Run, command: tuple[str, ...]) -> None:
    text = run(*command, "--help").stdout
    assert f"recsys-data {' '.join(command)}" in text.partition("Examples")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("training-set", "build", "nothing"), "'nothing' is not a training set; choose from impressions, next_items"),
        (("training-set", "show", "nothing"), "'nothing' is not a training set; choose from impressions, next_items"),
        (("training-set", "rebuild", "nothing"), "'nothing' is not a training set"),
        (("train", "popular", "--set", "nothing"), "'nothing' is not a training set"),
        (("train", "itemknn"), "'itemknn' is not a model for next_items, whose rows are outcomes; choose from popular"),
        (("train", "popular", "--set", "shown"), "'popular' is not a model for shown, whose rows are impressions"),
        (("train", "popular", "-p", "half_life_days"), "--parameter 'half_life_days' has no value; write NAME=VALUE."),
        (("train", "popular", "-p", "half_life_days=["), "'[' is not a value; write it as in YAML."),
        (("train", "popular", "-p", "halflife=3"), "half_life_days"),
        (("train", "popular", "-p", "half_life_days=long"), "half_life_days"),
        (("training-set", "show", "next_items", "--version", "99"), "next_items has no version 99: there are 1"),
        (("training-set", "rebuild", "next_items", "--version", "99"), "next_items has no version 99: there are 1"),
        (("train", "popular", "--version", "99"), "next_items has no version 99: there are 1"),
        (("models", "--promote", "next_items", "99"), "next_items has no version 99; registered are 1, 2"),
        (("models", "--promote", "nothing", "1"), "nothing has no version 1; registered are none"),
    ],
)
def test_what_is_not_there_is_explained(run: Run, built: Settings, arguments: tuple[str, ...], message: str) -> None:
    error = run(*arguments, code=1).stderr
    assert error.startswith("Error: ") and message in error, error


def test_files_that_are_gone_are_named_with_what_to_run(run: Run, built: Settings, tmp_path: Path) -> None:
    path = built.training_dir / "sets" / "next_items" / "1" / "test.parquet"
    path.rename(tmp_path / "aside")
    export = ("training-set", "export", "next_items", "--format", "recbole", "--out", str(tmp_path / "out"))
    for command in (("train", "popular"), export):
        error = run(*command, "--version", "1", code=1).stderr
        assert "next_items 1 has no test.parquet any more" in error
        assert "Run: recsys-data training-set rebuild next_items --version 1" in error
    (tmp_path / "aside").rename(path)


def test_without_events_it_is_said_what_to_do(run: Run, contracts: Path) -> None:
    for command in (("training-set", "build"), ("train", "popular")):
        assert (
            "There are no interactions to build a training set from. Run: recsys-data ingest"
            in run(*command, code=1).stderr
        )
    error = run("training-set", "show", "next_items", code=1).stderr
    assert "next_items has no version: none was built. Run: recsys-data training-set build next_items" in error
    lines = run("training-set", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["impressions", "next_items"]
    assert len(run("models").stdout.splitlines()) <= 2


def test_a_declaration_that_cannot_be_read_is_named(run: Run, contracts: Path) -> None:
    (contracts / "training_sets").mkdir()
    (contracts / "training_sets" / "mine.yaml").write_text("name: [")
    for command in (("training-set", "list"), ("training-set", "build"), ("train", "popular")):
        error = run(*command, code=1).stderr
        assert "training_sets/mine.yaml: is not valid YAML at line" in error
    shutil.rmtree(contracts / "training_sets")
    add_set(contracts, name="mine", rows="outcomes", labels=[{"type": "click"}], features=["item_sales"])
    assert "features: 'item_sales' is not a feature view" in run("training-set", "build", "mine", code=1).stderr
