"""RecBole's atomic files: `NAME/NAME.train.inter`, `.valid.inter` and `.test.inter`.

`rating` is the label of the set, `label` whether it is above 0. Read them with `benchmark_filename: [train, valid,
test]` and `data_path` naming the folder of the export. RecBole reads them with pandas, for which a quote at the
beginning of a cell has a meaning and some words are no value; other readers disagree, and such ids are refused.
Format: https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

from pathlib import Path

from recsys_data.sql import literal, quote
from recsys_data.training.exports.rows import USER, Options, Rows, Written, renamed

# split -> how RecBole's documentation calls it.
NAMES = {"train": "train", "validation": "valid", "test": "test"}
# pandas reads these as no value; [PAD] is a token of RecBole's own.
RESERVED = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "[PAD]",
)  # fmt: skip


def write(rows: Rows, folder: Path, options: Options) -> Written:
    """Write a file for each split, also for those without rows: RecBole expects three."""
    reserved = ", ".join(map(literal, RESERVED))
    features = rows.features()
    for column, value in (("user_id", USER), ("item_id", "item_id")):
        rows.refuse(column, f"{value} IN ({reserved})", "RecBole does not read it as an id.", value)
    for column, value in (
        ("user_id", USER),
        ("item_id", "item_id"),
        *((one, quote(one)) for one in features.categories),
    ):
        why = "expected text without tabs and line ends that does not begin with a quote. Choose another format."
        rows.refuse(column, rf"regexp_matches({value}, '[\t\r\n]|^\"')", why, value)
    columns = {
        "user_id:token": USER,
        "item_id:token": "item_id",
        "timestamp:float": "epoch_us(timestamp) / 1e6",
        "rating:float": "label",
        "label:float": "(label > 0)::INTEGER",
    }
    for name in features.names:
        if name in features.numbers:
            columns[f"{name}:float"] = quote(name)
        else:
            columns[f"{name}:token"] = f"{quote(name)}::INTEGER" if name in features.flags else quote(name)
    name = rows.manifest.name
    (folder / name).mkdir()
    for split, named in NAMES.items():
        query = f"SELECT {renamed(columns)} FROM ({rows.of(split)})"
        path = folder / name / f"{name}.{named}.inter"
        rows.copy(query, path, FORMAT="csv", HEADER="true", DELIMITER=r"'\t'", QUOTE="''")
    return Written(rows.counts(), columns_left_out=features.left_out)
