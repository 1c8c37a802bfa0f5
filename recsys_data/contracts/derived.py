"""What a snapshot dataset brings with it: its history, and the rows that it refused. Neither needs a file."""

from dataclasses import replace

from recsys_data.contracts.model import Column, Contract, Kind, history_name, rejected_name

PERIOD = (
    Column(
        "valid_from",
        "timestamp",
        "When the state was first known.",
        required=True,
        key=True,
        system="valid_from",
    ),
    Column("valid_to", "timestamp", "When it was known to be over; empty while it holds.", system="valid_to"),
    Column(
        "changed",
        "list<string>",
        "Columns that differ from the state before; empty for a new row.",
        system="changed",
    ),
    Column(
        "is_current",
        "boolean",
        "Whether the state still holds.",
        required=True,
        partitioned=True,
        system="is_current",
    ),
)


def history_of(contract: Contract) -> Contract:
    """`NAME_history`: every state a row was ever in, with the time from and to which it was known (SCD2)."""
    states = tuple(column for column in contract.columns if not column.system)
    return replace(
        contract,
        name=history_name(contract.name),
        purpose=f"Every state that a row of {contract.name} was ever known to be in.",
        usage=(
            f"A row holds from valid_from until before valid_to; {contract.name}_as_of(moment) gives the rows of a "
            "moment. Nothing is valid before it was known."
        ),
        grain="One row per key and period in which nothing changed.",
        tags=tuple(tag for tag in contract.tags if tag != "snapshot") + (Kind.HISTORY.value,),
        columns=(*states, *PERIOD),
        rules=(),
        checks={},
        references=(),
        servers=(),
        # It is far smaller than the snapshots that it is made of, and outlives them.
        retention=None,
        kind=Kind.HISTORY,
        base=contract.name,
    )


def rejected_of(contract: Contract) -> Contract:
    """`NAME_rejected`: the rows of each day's source that broke the contract, each with its reason."""
    personal = any(column.classification for column in contract.columns)
    return replace(
        contract,
        name=rejected_name(contract.name),
        purpose=f"Rows of the sources of {contract.name} that broke its contract, each with the reason.",
        usage="Fix the source or the contract, and run the snapshot of the day again.",
        grain="One row per refused row and day.",
        tags=tuple(tag for tag in contract.tags if tag != "snapshot") + ("dead-letters",),
        columns=(
            *(column for column in contract.columns if column.system),
            Column(
                "row_key",
                "string",
                "Key of the row, as JSON.",
                key=True,
                classification="personal" if personal else None,
            ),
            Column("reason", "string", "Why it was refused.", required=True),
            Column(
                "detail",
                "string",
                "What was found, and what was expected.",
                classification="personal" if personal else None,
            ),
            Column("row", "object", "The row as it came, as JSON.", classification="personal" if personal else None),
        ),
        rules=(),
        checks={},
        references=(),
        servers=(),
        kind=Kind.REJECTED,
        base=contract.name,
    )
