"""Where Dagster keeps its own state when `recsys-data up` runs it."""

from pathlib import Path
from typing import Any

from recsys_data.errors import UserError
from recsys_data.settings import Settings, variable

# The folder that the project's dagster.yaml names, relative to a checkout.
NAMED = "data/dagster"
HEADER = "# Made by `recsys-data up` at each start. To configure Dagster yourself, set DAGSTER_HOME.\n"


def dagster_home(settings: Settings) -> Path:
    """The folder for DAGSTER_HOME, with a dagster.yaml in it.

    Raises:
        UserError: DAGSTER_HOME is set to something else than a folder.
    """
    import yaml

    from recsys_data.durable import write_atomically

    given = variable("DAGSTER_HOME")
    if given:
        if not Path(given).is_absolute() or not Path(given).is_dir():
            raise UserError(f"DAGSTER_HOME is {given!r}; expected the absolute path of a folder. Create or unset it.")
        return Path(given)
    home = settings.dagster_dir
    content = HEADER + yaml.safe_dump(placed(yaml.safe_load(shipped().read_text("utf-8")), home), sort_keys=False)
    write_atomically(home / "dagster.yaml", content.encode())
    return home


def shipped() -> Path:
    """The project's dagster.yaml: in the package where it was installed, beside it in a checkout."""
    package = Path(__file__).parents[2]
    installed = package / "dagster.yaml"
    return installed if installed.is_file() else package.parent / "dagster.yaml"


def placed(value: Any, home: Path) -> Any:
    """The configuration with every path below `data/dagster` moved to `home`."""
    if isinstance(value, dict):
        return {name: placed(one, home) for name, one in value.items()}
    if isinstance(value, list):
        return [placed(one, home) for one in value]
    if isinstance(value, str) and (value == NAMED or value.startswith(NAMED + "/")):
        return str(home) + value.removeprefix(NAMED)
    return value
