"""Scenarios as they are declared."""

from pathlib import Path

import pytest

from recsys_data.errors import ContractError
from recsys_data.serving.scenarios.declared import Scenarios, bucket, load_scenarios, parse_scenario

FILE = Path("shelf.yaml")


def scenario(**document):
    return parse_scenario(FILE, {"name": "shelf", **document})


def test_the_package_declares_home_item_page_cart_and_popular():
    assert set(load_scenarios()) == {"home", "item_page", "cart", "popular"}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"name": "A shelf"}, "name is 'A shelf'"),
        ({"n": 0}, r"Expected `int` >= 1 - at `\$.n`"),
        ({"number": 5}, "unknown field `number`"),
        ({"candidates": ["magic"]}, r"Invalid enum value 'magic' - at `\$.candidates\[0\]`"),
        ({"exploration": 1.5}, r"<= 1.0 - at `\$.exploration`"),
        ({"variants": {"a": 0.5, "b": 0.4}}, "shares add up to 0.9; expected 1"),
        ({"variants": {"a b": 1.0}}, "'a b' is not a name"),
        ({"variants": {"a": {"share": 1.0, "modle": "m"}}}, "unknown field `modle`"),
    ],
)
def test_what_makes_no_sense_is_refused_with_file_and_field(document, says):
    with pytest.raises(ContractError, match=says) as error:
        scenario(**document)
    assert str(error.value).startswith("shelf.yaml: ")


def test_a_variant_changes_what_it_says_and_needs_its_model():
    found = Scenarios({"shelf": scenario(variants={"a": 0.5, "b": {"share": 0.5, "model": "m", "exploration": 0.1}})})
    assert found.models == {("next_items", "champion"), ("m", "champion")}
    chosen = {it.variant: it.scenario for it in (found.choose("shelf", f"u{n}") for n in range(50))}
    assert chosen["a"].exploration == 0 and chosen["b"].exploration == 0.1


def test_shares_are_kept_and_experiments_are_independent():
    one = [bucket("one", f"u{n}") for n in range(4000)]
    two = [bucket("two", f"u{n}") for n in range(4000)]
    assert abs(sum(at < 0.3 for at in one) / 4000 - 0.3) < 0.04
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(one, two, strict=True)) / 4000
    assert abs(both - 0.25) < 0.04
