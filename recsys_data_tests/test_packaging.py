"""What `pip install` brings is what the package imports, and the other way round."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Loaded by name, from a URL or by another library.
BY_NAME = {
    "psycopg": "SQLAlchemy's driver of PostgreSQL",
    "pymysql": "SQLAlchemy's driver of MySQL and MariaDB",
    "open-data-contract-standard": "its JSON Schema is read as a resource",
    "pandas": "DataFrames of DuckDB's relations",
    "adbc-driver-postgresql": "asked for by the driver manager",
}

# Declared for the resources that the UI is to show.
NOT_YET: set[str] = set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared(requirements: list[str]) -> set[str]:
    return {_normal(re.split(r"[\[<>=~! ]", requirement)[0]) for requirement in requirements}


def _imported() -> set[str]:
    """The distributions that modules of the package import."""
    modules: set[str] = set()
    for file in (ROOT / "recsys_data").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    modules -= {*sys.stdlib_module_names, "recsys_data"}
    return {_normal(name) for module in modules for name in distributions.get(module, [module])}


def test_what_is_declared_is_imported_and_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    always = _declared(project["dependencies"])
    of_package = ("als", "embeddings", "kafka", "mysql", "openlineage", "postgres", "ranker", "redis", "spark")
    sources = _declared([name for extra in of_package for name in extras[extra]])
    imported = _imported()
    assert always - imported - set(BY_NAME) <= NOT_YET
    assert sources - imported - set(BY_NAME) == set()
    assert imported - always - sources == set()


def test_the_package_carries_its_types() -> None:
    assert (ROOT / "recsys_data" / "py.typed").is_file()
