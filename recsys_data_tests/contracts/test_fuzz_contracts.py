"""A file of contracts loads, or is refused with its place; it can do nothing else to whoever reads it."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_data.contracts import load_contract, load_contracts
from recsys_data.errors import ContractError
from recsys_data_tests.support.contract_files import (
    NOTE,
    builtin,
    columns_of,
    custom,
    load,
    odcs,
    of_stream,
    rule,
    rules_of,
)
from recsys_data_tests.support.decoding import decode_lines, decoder_of
from recsys_data_tests.support.fuzzing import examples
from recsys_data_tests.support.platform import view

DOCUMENTS = {name: builtin(name) for name in ("interactions", "dead_letters", "user_profiles")}
ODD: list[Any] = [None, "", "x", 0, -1, 1e999, float("nan"), True, [], {}, [None], {"a": 1}, ["x", 1], "; DROP TABLE x"]
ODD += ["x" * 5000, "a\nb", "\x00", "../../etc", "${HOME}", "{day}", "2026-01-01", 10**40, "array", "decimal(99,99)"]
SCALARS = st.one_of(st.sampled_from(ODD), st.text(max_size=10), st.integers(), st.floats())
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """The path of every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, one in inner for place in places(one, (*at, key))]


PLACES = {name: places(document) for name, document in DOCUMENTS.items()}


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """A contract of the package with one or two values replaced, removed, doubled or moved."""
    name = draw(st.sampled_from(list(DOCUMENTS)))
    document = copy.deepcopy(DOCUMENTS[name])
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(PLACES[name]))
        at: Any = document
        try:
            for step in way:
                at = at[step]
            kept = copy.deepcopy(at[last])
            match draw(st.sampled_from(["replace", "replace", "remove", "double", "move"])):
                case "replace":
                    at[last] = draw(ANYTHING)
                case "remove":
                    del at[last]
                case "double" if isinstance(at, list):
                    at.append(kept)
                case _:
                    document[draw(st.sampled_from(["schema", "name", "servers", "tags", "customProperties"]))] = kept
        except (LookupError, TypeError):
            continue
    return document


def load_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    began = time.process_time()
    try:
        load_contract(path)
    except ContractError as error:
        assert str(path) in str(error)
        assert "Traceback" not in str(error)
    assert time.process_time() - began < 10


@examples(40)
@given(document=mutants())
@example(document={1: {2: 3}})
@example(document=odcs(customProperties=[{"property": "stream", "value": ["events"]}]))
def test_a_changed_contract_loads_or_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    load_or_refuse(tmp_path / "mutant.odcs.yaml", yaml.safe_dump(document, allow_unicode=True).encode())


LINES = Path(builtin.__code__.co_filename).parents[2] / "recsys_data" / "contracts" / "interactions.odcs.yaml"
TEXT = LINES.read_bytes()


@examples(60)
@given(
    place=st.integers(0, len(TEXT)),
    junk=st.one_of(
        st.binary(max_size=5),
        st.sampled_from(
            [b"&a ", b"*a", b"!!python/name:os.system ", b"!!set ", b"<<: ", b"? [", b"{", b"\t", b"%YAML 9\n"]
        ),
        st.sampled_from(
            [b"2026-13-45", b"0o9", b"!!binary x", b"!!timestamp x", b"- ", b": ", b"|\n", b"---\n", b".inf"]
        ),
    ),
    cut=st.integers(0, 40),
)
def test_a_damaged_file_loads_or_is_refused(tmp_path: Path, place: int, junk: bytes, cut: int) -> None:
    load_or_refuse(tmp_path / "damaged.odcs.yaml", TEXT[:place] + junk + TEXT[place + cut :])


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
HOSTILE = {
    "an object of Python": ("!!python/object/apply:os.system ['touch pwned']", "could not determine a constructor"),
    "a name of Python": ("a: !!python/name:os.system", "could not determine a constructor"),
    "aliases of aliases": (LAUGHS, r"its aliases stand for \d{10,} values; at most"),
    "an alias within itself": ("&a {b: *a}", "line 1, column 1: an alias lies within what it stands for"),
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3, column 1: the key a stands there already"),
    "a key that is a list": ("? [1]\n: 2", "line 1, column 3: a key is not text"),
    "a key that is a date": ("2026-01-01: 1", "not valid YAML: keys must be"),
    "a day that is none": ("a: 2026-13-45", "not valid YAML: month must be in 1..12"),
    "a time that is none": ("a: !!timestamp x", "not valid YAML"),
    "a truth that is none": ("a: !!bool x", "not valid YAML"),
    "a number that is none": ("a: !!float x", "not valid YAML"),
    "nesting without end": ("[" * 100_000, "not valid YAML.* nesting depth"),
    "a file without end": ("a: " + "x" * 2_000_000, "is larger than 1048576 bytes"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_file_is_refused_before_it_does_anything(tmp_path: Path, fault: str) -> None:
    text, message = HOSTILE[fault]
    path = tmp_path / "hostile.odcs.yaml"
    path.write_text(text, "utf-8")
    began = time.process_time()
    with pytest.raises(ContractError, match=f"(?s)hostile.odcs.yaml: .*{message}"):
        load_contract(path)
    assert time.process_time() - began < 2
    assert not Path("pwned").exists()


NO_DATASETS = ["../../evil", "/etc/x", "a/b", "a.b", "", ".", "..", 'x"; DROP TABLE y', "a\nb", "a\x00", "x" * 64, "1a"]


@pytest.mark.parametrize("name", NO_DATASETS)
def test_the_name_of_a_dataset_leads_nowhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / "named.odcs.yaml"
    path.write_text(yaml.safe_dump(odcs(name)), "utf-8")
    with pytest.raises(
        ContractError, match=r"named.odcs.yaml: the dataset is named .*; expected letters, digits and _"
    ):
        load_contract(path)


def test_datasets_that_differ_by_case_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="the name Interactions differs from interactions by case only"):
        load(tmp_path, odcs("Interactions"))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00b", "x" * 200, "\u202eabc"])
def test_names_that_cannot_be_shown_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ContractError, match=r"is not a name; expected 1 to 128 printable characters"):
        load(tmp_path, odcs("notes", *columns_of(odcs()), NOTE | {"name": name}))


@pytest.mark.parametrize("source", [".", "a..b", ".a", "a\x00"])
def test_a_source_that_is_no_path_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ContractError, match="column note has the source .*; expected names of members"):
        load(tmp_path, of_stream("notes", NOTE | {"customProperties": custom(source=source)}))


NAMES = ['x"; DROP TABLE lines; --', "it's", "select", "größe", "x y", '"', "a.b", "%s", "{0}", "*", "\\", "`"]


def test_names_are_quoted_wherever_they_go(tmp_path: Path) -> None:
    """A column of any name is decoded, validated and explained."""
    document = builtin("interactions")
    columns_of(document).extend(
        {"name": name, "logicalType": "string", "customProperties": custom(source=f"s{n}")}
        for n, name in enumerate(NAMES)
    )
    rules_of(document).append(rule("it's \"; DROP TABLE lines", "event_id <> 'bad'"))
    decoder = decoder_of(load(tmp_path, document))
    sent: dict[str, Any] = {f"s{n}": f"v{n}" for n in range(len(NAMES))}
    (event,), (dead,) = decode_lines(decoder, [view("a", **sent), view("bad")])
    assert [event[name] for name in NAMES] == list(sent.values())
    assert dead.reason == "it's \"; DROP TABLE lines"


REACHING = [
    "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
    "EXISTS (FROM read_text('/etc/passwd'))",
    "EXISTS (FROM glob('/etc/*'))",
    "EXISTS (FROM '/etc/passwd.csv')",
    "EXISTS (FROM read_parquet('http://127.0.0.1:1/x'))",
    "true); COPY (SELECT 1) TO 'pwned.csv'; SELECT (true",
    "true) FROM (ATTACH 'pwned.db') --",
    "EXISTS (FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1')))",
    "EXISTS (FROM query('SELECT 1'))",
    "current_setting('temp_directory') = ''",
    "event_id IN (SELECT name FROM duckdb_settings())",
    "event_id IN (SELECT name FROM pg_settings)",
    "event_id IN (SELECT name FROM known_time_zones)",
    "sum(value) > 1",
    "row_number() OVER () > 1",
    "unnest([true])",
]


@pytest.mark.parametrize("predicate", REACHING)
def test_a_rule_reaches_nothing_but_its_row(tmp_path: Path, predicate: str) -> None:
    document = builtin("interactions")
    rules_of(document).append(rule("reaching", predicate))
    with pytest.raises(ContractError, match="rule reaching: .* (cannot be evaluated|is refused: )"):
        load(tmp_path, document)
    assert not list(tmp_path.glob("pwned*")) + list(Path().glob("pwned*"))


def test_patterns_of_rules_take_time_that_grows_with_the_text_alone(tmp_path: Path) -> None:
    document = builtin("interactions")
    rules_of(document).append(rule("evil", r"NOT regexp_full_match(coalesce(query, ''), '(a+)+(a|aa)*b')"))
    decoder = decoder_of(load(tmp_path, document), max_event_bytes=40_000)
    began = time.process_time()
    events, _ = decode_lines(decoder, [view(f"e{n}", query="a" * 30_000) for n in range(20)])
    assert len(events) == 20
    assert time.process_time() - began < 5


def test_the_contracts_of_the_package_are_read_as_they_are_written() -> None:
    for contract in load_contracts().values():
        if contract.base is None:
            document = yaml.safe_load(contract.path.read_text("utf-8"))
            json.dumps(document)
            assert contract.version == document["version"]
