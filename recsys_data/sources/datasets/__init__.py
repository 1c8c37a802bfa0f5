"""Importers: public data sets, and files of native events, as lines for the event log.

Data flow: files of a data set -> `Importer.read` -> `Import` (batches of lines, in event-time order) ->
the process that appends them to the log and sets `received_at`. Loading the same files again gives the same lines,
byte for byte and with the same event ids, so that ingestion drops them as duplicates. What a data set has
about users and items comes along as states of days, for the landing folders of the batch side.
Run it alone: `recsys-data load movielens FOLDER`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from recsys_data.errors import UserError
from recsys_data.sources.datasets.landing import State


@dataclass(frozen=True, slots=True)
class Import:
    """What an importer found: iterate it once, for batches of thousands of lines without their newlines.

    Attributes:
        total: how many lines there are.
        batches: the lines.
        states: users and items, one state a day, in the order of the days.
    """

    total: int
    batches: Iterator[list[bytes]]
    states: Sequence[State] = ()

    def __iter__(self) -> Iterator[list[bytes]]:
        return self.batches


@dataclass(frozen=True, slots=True)
class Importer:
    """How a data set gets in.

    Attributes:
        name: what it is called on the command line.
        help: what it brings, in one line.
        path: what the path has to be, as a phrase.
        module: the module of this package whose `read(path)` does it; imported when used, for some are heavy.
        file: a file is taken.
        folder: a folder is taken.
    """

    name: str
    help: str
    path: str
    module: str
    file: bool = False
    folder: bool = False

    def read(self, path: Path) -> Import:
        """Check and order everything below `path`, and only then hand out the first line.

        Raises:
            UserError: the path, a file or a header is not what this data set has, or a file cannot be read.
            Transient: the disk has no room to sort.
        """
        if not path.exists():
            raise UserError(f"{path} does not exist. Name {self.path}.")
        if path.is_dir() and not self.folder:
            raise UserError(f"{path} is a folder. Name {self.path}.")
        if not path.is_dir() and not (self.file and path.is_file()):
            raise UserError(f"{path} is {'a' if path.is_file() else 'not a'} file. Name {self.path}.")
        return import_module(f"{__name__}.{self.module}").read(path)


IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        Importer(
            "movielens",
            "Ratings, tags and movies of a MovieLens data set (latest-small, latest, 25M, 32M).",
            "the folder of a MovieLens data set: ratings.csv, tags.csv, movies.csv, links.csv, plain or gzipped",
            "movielens",
            folder=True,
        ),
        Importer(
            "online-retail",
            "Order lines, cancellations, items and customers of the UCI data set Online Retail.",
            "a CSV file of Online Retail, or a folder with one a day (or with by-day/), plain or gzipped",
            "online_retail",
            file=True,
            folder=True,
        ),
        Importer(
            "google-retail",
            "User events in the format of Google's Retail API (Vertex AI Search for commerce).",
            "a file of Google Retail user events, one JSON object a line, plain or gzipped",
            "google_retail",
            file=True,
        ),
        Importer(
            "open-bandit",
            "Impressions with propensities, and clicks, that the two policies of the Open Bandit Dataset logged.",
            "the folder of the Open Bandit Dataset: random/all/all.csv, bts/all/all.csv and so on, plain or gzipped",
            "open_bandit",
            folder=True,
        ),
        Importer(
            "recbole",
            "Ratings, users and items in the atomic files of RecBole.",
            "the folder of a RecBole data set: NAME.inter, NAME.user, NAME.item, plain or gzipped",
            "recbole",
            folder=True,
        ),
        Importer(
            "events",
            "Native events, passed on as they are.",
            "a file of native events, one JSON object a line, plain or gzipped",
            "events",
            file=True,
        ),
    )
}
