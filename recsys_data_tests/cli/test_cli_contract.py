import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from recsys_data.contracts import load_contracts
from recsys_data.contracts.load import CONTRACTS_DIR, files_in
from recsys_data.training.sets.declared import FOLDER, SETS

Run = Callable[..., Result]


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A further contract in use: a copy of `identities` under another name."""
    folder = tmp_path / "contracts"
    folder.mkdir()
    text = (CONTRACTS_DIR / "identities.odcs.yaml").read_text("utf-8").replace("identities", "memberships")
    path = folder / "memberships.odcs.yaml"
    path.write_text(text, "utf-8")
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(folder))
    return path


def test_contracts_are_listed(run: Run, other: Path) -> None:
    names = {line.split()[0] for line in run("contract", "list").stdout.splitlines()[2:]}
    assert names == {*load_contracts(), "memberships"}
    assert {"interactions", "item_catalog", "item_catalog_history"} <= names


def test_a_contract_is_shown(run: Run) -> None:
    text = run("contract", "show", "interactions").stdout
    for line in ("scroll_depth_out_of_range", "TIMESTAMPTZ", "personal", "value >= 0", "Rank of the item in the list"):
        assert line in text


def test_an_unknown_dataset_is_explained(run: Run) -> None:
    for command in ("show", "jsonschema"):
        error = run("contract", command, "purchases", code=1).stderr
        assert error == f"Error: Unknown dataset 'purchases'. Choose one of {', '.join(load_contracts())}.\n"


def test_contracts_in_use_are_sound(run: Run, other: Path) -> None:
    printed = run("contract", "check").stdout.splitlines()
    lines = [line for line in printed if ": training set " not in line]
    assert len(lines) == len(files_in(CONTRACTS_DIR)) + 1
    assert f"{other}: memberships 1.0.0" in lines[-1]
    assert len(printed) - len(lines) == len(list(SETS.glob("*.yaml")))


def test_every_problem_is_reported(run: Run, other: Path, tmp_path: Path) -> None:
    text = other.read_text("utf-8")
    other.write_text(text.replace("logicalType: timestamp", "logicalType: moment", 1), "utf-8")
    broken = tmp_path / "broken.odcs.yaml"
    broken.write_text("a: [", "utf-8")
    result = run("contract", "check", str(other.parent), str(broken), str(tmp_path / "none.odcs.yaml"), code=1)
    errors = result.stderr.splitlines()
    assert "'moment' is not one of" in errors[0] or "type moment" in errors[0]
    assert "is not valid YAML at line 2" in errors[1] or "is not valid YAML at line 1" in errors[1]
    assert "cannot be read" in errors[2]
    assert errors[-1] == "Error: 3 of 3 contracts cannot be used."


def test_contracts_that_contradict_each_other_are_refused(
    run: Run, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = other.read_text("utf-8")
    other.write_text(
        text.replace("- name: traits\n        logicalType: object", "- name: traits\n        logicalType: array")
    )
    assert "column traits differs" in run("contract", "check", code=1).stderr
    monkeypatch.delenv("RECSYS_DATA_CONTRACTS")
    run("contract", "check")
    assert "column traits differs" in run("contract", "check", str(other), code=1).stderr


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a training set to the user's folder, which holds nothing else."""
    folder = tmp_path / "own" / FOLDER
    folder.mkdir(parents=True)
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(folder.parent))

    def declare(name: str = "mine", text: str | None = None, **changes: Any) -> Path:
        document = {"name": name, "rows": "outcomes", "labels": [{"type": "click"}], **changes}
        path = folder / f"{name}.yaml"
        path.write_text(text or json.dumps(document), "utf-8")
        return path

    return declare


def test_training_sets_are_checked_with_the_contracts(run: Run, declare: Callable[..., Path]) -> None:
    path = declare(features=["item_engagement"], bots="events > 10")
    lines = run("contract", "check").stdout.splitlines()
    assert lines[-1] == f"{path}: training set mine of outcomes, 1 labels, 1 feature views"
    assert f"{SETS / 'next_items.yaml'}: training set next_items of outcomes" in lines[-2]
    for named in (path, path.parents[1]):
        assert run("contract", "check", str(named)).stdout.splitlines() == lines[-1:]


def test_every_problem_of_training_sets_is_reported(run: Run, declare: Callable[..., Path]) -> None:
    broken = declare("broken", "a: [")
    declare(features=["item_sales"])
    declare("odd", bots="visits > 3")
    declare("interactions")
    declare("trained", models={"itemknn": {}})
    errors = run("contract", "check", code=1).stderr.splitlines()
    assert f"{broken}: is not valid YAML" in errors[0]
    assert "name: interactions is the name of a dataset" in errors[1]
    assert "mine.yaml: features: 'item_sales' is not a feature view; choose from" in errors[2]
    assert "odd.yaml: bots: 'visits > 3' cannot be used" in errors[3]
    assert "trained.yaml: models: 'itemknn' is not a model for rows of outcomes; choose from popular" in errors[4]
    assert errors[-1].startswith("Error: 5 of ") and errors[-1].endswith(" training sets cannot be used.")


def test_a_training_set_that_is_declared_twice_is_refused(run: Run, declare: Callable[..., Path]) -> None:
    declare()
    text = declare().read_text("utf-8")
    declare("twin", text)
    assert "twin.yaml: name: mine is declared in mine.yaml too" in run("contract", "check", code=1).stderr
    assert "twin.yaml: name: mine is declared in mine.yaml too" in run("training-set", "list", code=1).stderr


def test_a_folder_without_contracts_is_explained(run: Run, tmp_path: Path) -> None:
    assert "holds no contracts" in run("contract", "check", str(tmp_path), code=1).stderr


def test_scenarios_are_checked_with_the_contracts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "own" / "scenarios"
    folder.mkdir(parents=True)
    good, broken = folder / "good.yaml", folder / "broken.yaml"
    good.write_text(json.dumps({"name": "shelf", "candidates": ["popular"], "rules": {"cheap": "price <= 100"}}))
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(folder.parent))
    for named in ((), (str(good),), (str(folder.parent),)):
        assert run("contract", "check", *named).stdout.splitlines()[-1] == f"{good}: scenario shelf, candidates popular"
    broken.write_text(json.dumps({"name": "other", "rules": {"cheap": "prise <= 100"}}))
    errors = run("contract", "check", code=1).stderr.splitlines()
    assert errors[0].startswith(f"Error: {broken}: rules: cheap: `prise <= 100` cannot be evaluated")
    assert errors[-1] == "Error: 1 of 2 scenarios cannot be used."
