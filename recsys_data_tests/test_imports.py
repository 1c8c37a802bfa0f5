"""No circle of imports: a module can be read, moved and replaced with what it imports, and nothing else."""

import warnings
from graphlib import CycleError, TopologicalSorter

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import grimp

ROOTS = ("recsys_data", "benchmarks")


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle in order, the first one also at the end; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_by_way_of_others():
    # The graph has every import statement: also those within functions, and those for type checkers alone.
    graph = grimp.build_graph(*ROOTS, exclude_type_checking_imports=False, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}

    assert all(root in imports for root in ROOTS)
    assert circle(imports) == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_found(length):
    assert circle({str(number): {str((number + 1) % length)} for number in range(length)})
