import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.errors import UserError
from recsys_data.training.beyond_accuracy import ItemFacts
from recsys_data.training.bootstrap import mean_interval
from recsys_data.training.metrics import Evaluation, evaluate, evaluate_by_item_segment

MEASURES = (
    "nDCG@10",
    "nDCG@3",
    "nDCG",
    "R@3",
    "R@10",
    "P@3",
    "P@10",
    "AP@3",
    "AP@10",
    "AP",
    "RR",
    "Success@1",
    "Success@5",
)


def recommended(*rows: tuple[str, str, float]) -> pa.Table:
    names = ("query_id", "item_id", "score")
    return pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)}).cast(
        pa.schema([("query_id", pa.string()), ("item_id", pa.string()), ("score", pa.float64())])
    )


def relevant(*rows: tuple[str, str, float]) -> pa.Table:
    return recommended(*rows).rename_columns(["query_id", "item_id", "gain"])


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


def random_rows(seed: int) -> tuple[list[tuple[str, str, float]], list[tuple[str, str, float]]]:
    """A run with ties, empty lists and queries that only one side has."""
    random = np.random.default_rng(seed)
    run, truth = [], []
    for query in range(4):
        for item in random.choice(15, random.integers(0, 13), replace=False):
            run.append((f"q{query}", f"i{item}", float(random.integers(0, 5)) / 4))
        if random.random() < 0.9:
            for item in random.choice(15, random.integers(1, 9), replace=False):
                truth.append((f"q{query}", f"i{item}", float(random.integers(0, 4))))
    return run, truth


def test_a_thousand_random_runs_give_the_values_of_trec_eval() -> None:
    import ir_measures

    names = {ir_measures.parse_measure(name): name for name in MEASURES}
    for seed in range(1_000):
        run, truth = random_rows(seed)
        if not truth:
            continue
        found = evaluate(recommended(*run), relevant(*truth), MEASURES)
        ours = {row["query_id"]: row for row in found.per_query.to_pylist()}
        qrels = [ir_measures.Qrel(query, item, int(gain)) for query, item, gain in truth]
        oracle = ir_measures.calc(list(names), qrels, [ir_measures.ScoredDoc(*row) for row in run])
        assert len(oracle.per_query) == len(ours) * len(MEASURES)
        for one in oracle.per_query:
            assert ours[one.query_id][names[one.measure]] == pytest.approx(one.value, abs=1e-12), (seed, one)
        for measure, value in oracle.aggregated.items():
            assert found.metrics[names[measure]] == pytest.approx(value, abs=1e-12), (seed, measure)


def test_reciprocal_rank_with_a_cutoff_is_that_of_the_first_items() -> None:
    run = recommended(("q", "a", 3), ("q", "b", 2), ("q", "c", 1))
    found = evaluate(run, relevant(("q", "c", 1)), ("RR@2", "RR@3", "RR"))
    assert found.metrics == {"RR@2": 0.0, "RR@3": 1 / 3, "RR": 1 / 3}


def test_values_computed_by_hand() -> None:
    run = recommended(("u", "a", 9), ("u", "b", 8), ("u", "c", 7), ("v", "a", 1))
    truth = relevant(("u", "a", 1), ("u", "c", 2), ("u", "d", 1), ("w", "a", 1))
    found = evaluate(run, truth, ("P@2", "R@3", "AP@3", "MAP", "nDCG@3", "Success@1"))
    assert found.queries == 2
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert found.per_query.to_pylist() == [
        {
            "query_id": "u",
            "P@2": 1 / 2,
            "R@3": 2 / 3,
            "AP@3": pytest.approx((1 + 2 / 3) / 3),
            "MAP": pytest.approx((1 + 2 / 3) / 3),
            "nDCG@3": pytest.approx((1 + 2 / 2) / ideal),
            "Success@1": 1,
        },
        {"query_id": "w", "P@2": 0, "R@3": 0, "AP@3": 0, "MAP": 0, "nDCG@3": 0, "Success@1": 0},
    ]
    assert found.metrics["R@3"] == pytest.approx(1 / 3)


def test_equal_scores_come_by_descending_item_id_and_rank_is_not_read() -> None:
    run = recommended(("q", "a", 1), ("q", "b", 1)).append_column("rank", pa.array([1, 2], pa.int32()))
    assert evaluate(run, relevant(("q", "b", 1)), ("RR",)).metrics == {"RR": 1.0}
    assert evaluate(run, relevant(("q", "a", 1)), ("RR",)).metrics == {"RR": 0.5}


def test_scores_that_a_32_bit_float_cannot_tell_apart_are_not_ties() -> None:
    run = recommended(("q", "a", 0.1 + 1e-12), ("q", "b", 0.1))
    assert evaluate(run, relevant(("q", "a", 1)), ("RR",)).metrics == {"RR": 1.0}


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_order_of_rows_changes_no_bit(seed: int, order: int) -> None:
    run, truth = random_rows(seed)
    truth = truth or [("q0", "i0", 1.0)]
    facts = ItemFacts(interactions=relevant(*truth).rename_columns(["user_id", "item_id", "gain"]))
    measures = (*MEASURES, "MeanInvUserFreq@5", "AvgRecPopularity@5")
    one = evaluate(recommended(*run), relevant(*truth), measures, facts=facts)
    other = evaluate(shuffled(recommended(*run), order), shuffled(relevant(*truth), order), measures, facts=facts)
    assert one.per_query.equals(other.per_query)
    assert repr(one.metrics) == repr(other.metrics)


@given(st.integers(0, 10_000))
def test_every_accuracy_is_between_0_and_1(seed: int) -> None:
    run, truth = random_rows(seed)
    found = evaluate(recommended(*run), relevant(*(truth or [("q0", "i0", 1.0)])), MEASURES)
    assert all(0 <= value <= 1 + 1e-12 for value in found.metrics.values())


def test_queries_without_recommendations_count_0_and_others_are_left_out() -> None:
    truth = relevant(("u", "a", 1), ("v", "a", 1))
    found = evaluate(recommended(("u", "a", 1), ("x", "a", 1)), truth, ("P@1",))
    assert found.metrics == {"P@1": 0.5}
    assert evaluate(recommended(), truth).metrics == dict.fromkeys(evaluate(recommended(), truth).metrics, 0.0)


@pytest.mark.parametrize(
    ("run", "truth", "measures", "message"),
    [
        ([("q", "a", 1), ("q", "a", 2)], [("q", "a", 1)], ("P@1",), "recommendations have item 'a' more than once for"),
        ([("q", "a", 1)], [("q", "b", 1), ("q", "b", 1)], ("P@1",), "truth have item 'b' more than once for query 'q'"),
        ([("q", "a", 1)], [], ("P@1",), "the truth has no rows"),
        ([("q", "a", math.nan)], [("q", "a", 1)], ("P@1",), "score of the recommendations has values that are NaN"),
        ([("q", "a", 1)], [("q", "a", 1)], ("F1@1",), "Unknown measure 'F1@1'"),
        ([("q", "a", 1)], [("q", "a", 1)], ("P",), "'P' needs a cutoff"),
        ([("q", "a", 1)], [("q", "a", 1)], ("P@0",), "Unknown measure 'P@0'"),
        ([("q", "a", 1)], [("q", "a", 1)], ("CatalogCoverage@1",), "CatalogCoverage@1 needs to know `catalog`"),
    ],
)
def test_what_cannot_be_measured_is_refused(run: list, truth: list, measures: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(recommended(*run), relevant(*truth), measures)


def test_a_missing_column_and_a_null_are_refused() -> None:
    truth = relevant(("q", "a", 1))
    with pytest.raises(UserError, match="Expected also score"):
        evaluate(recommended(("q", "a", 1)).drop_columns("score"), truth)
    with pytest.raises(UserError, match="1 nulls"):
        evaluate(pa.table({"query_id": ["q", None], "item_id": ["a", "b"], "score": [1.0, 2.0]}), truth)
    with pytest.raises(UserError, match="cannot be measured without a truth"):
        evaluate(recommended(("q", "a", 1)), None, ("P@1",))
    with pytest.raises(UserError, match="neither recommendations nor a truth"):
        evaluate(recommended(), None, ("CatalogCoverage",))


LISTS = recommended(("u", "a", 3), ("u", "b", 2), ("u", "c", 1), ("v", "a", 2), ("v", "c", 1))
PAST = pa.table({"user_id": ["1", "2", "3", "4", "1", "1"], "item_id": ["a", "a", "a", "a", "b", "b"]})


def beyond(measure: str, facts: ItemFacts) -> tuple[float, dict[str, float]]:
    found = evaluate(LISTS, None, (measure,), facts=facts)
    by_query = found.per_query.to_pylist() if measure in found.per_query.column_names else []
    return found.metrics[measure], {row["query_id"]: row[measure] for row in by_query}


def test_coverage_is_the_share_of_the_catalog() -> None:
    catalog = pa.array(["a", "b", "d", "e"])
    assert beyond("CatalogCoverage@1", ItemFacts(catalog=catalog)) == (0.25, {})
    assert beyond("CatalogCoverage", ItemFacts(catalog=catalog)) == (0.5, {})


def test_novelty_is_in_bits_and_an_unseen_item_counts_as_one_of_one_user() -> None:
    mean, by_query = beyond("MeanInvUserFreq@10", ItemFacts(interactions=PAST))
    assert by_query == {"u": pytest.approx((0 + 2 + 2) / 3), "v": pytest.approx(1.0)}
    assert mean == pytest.approx(7 / 6)


def test_popularity_counts_interactions() -> None:
    assert beyond("AvgRecPopularity@2", ItemFacts(interactions=PAST)) == (2.5, {"u": 3.0, "v": 2.0})


def test_diversity_by_category_is_the_share_of_pairs_that_differ() -> None:
    categories = pa.table({"item_id": ["a", "b", "c"], "category": ["x", "x", "y"]})
    mean, by_query = beyond("IntraListDiversity@3", ItemFacts(categories=categories))
    assert by_query == {"u": pytest.approx(2 / 3), "v": pytest.approx(1.0)}
    assert mean == pytest.approx(5 / 6)
    assert beyond("IntraListDiversity@1", ItemFacts(categories=categories))[0] == 0.0


def test_diversity_by_vectors_is_1_less_cosine() -> None:
    vectors = pa.table({"item_id": ["a", "b", "c"], "vector": [[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]})
    _, by_query = beyond("IntraListDiversity", ItemFacts(vectors=vectors))
    half = math.sqrt(0.5)
    assert by_query == {"u": pytest.approx(1 - (half + half + 0) / 3), "v": pytest.approx(1.0)}


def test_a_list_of_items_without_a_vector_has_no_diversity() -> None:
    vectors = pa.table({"item_id": ["b"], "vector": [[1.0]]})
    assert beyond("IntraListDiversity", ItemFacts(vectors=vectors)) == (0.0, {"u": 0.0, "v": None})


def test_vectors_that_do_not_fit_are_refused() -> None:
    one = pa.table({"item_id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]})
    with pytest.raises(UserError, match="Expected one length"):
        beyond("IntraListDiversity", ItemFacts(vectors=one))
    with pytest.raises(UserError, match="more than one vector"):
        beyond("IntraListDiversity", ItemFacts(vectors=pa.table({"item_id": ["a", "a"], "vector": [[1.0], [1.0]]})))
    with pytest.raises(UserError, match="Give one of them"):
        beyond("IntraListDiversity", ItemFacts(vectors=one, categories=one))


def test_the_share_of_new_items() -> None:
    assert beyond("NewItemShare@2", ItemFacts(new_items=pa.array(["c", "z"]))) == (0.25, {"u": 0.0, "v": 0.5})


def test_what_no_query_has_is_nan() -> None:
    found = evaluate(
        recommended(), relevant(("q", "a", 1)), ("NewItemShare",), facts=ItemFacts(new_items=pa.array(["a"]))
    )
    assert math.isnan(found.metrics["NewItemShare"])
    assert found.per_query["NewItemShare"].to_pylist() == [None]


def two_queries() -> Evaluation:
    truth = relevant(("u", "a", 1), ("v", "a", 1), ("w", "a", 1))
    return evaluate(recommended(("u", "a", 1), ("v", "b", 1)), truth, ("P@1",))


def test_segments_may_overlap_and_queries_without_one_are_named() -> None:
    segments = pa.table({"query_id": ["u", "v", "u", "x"], "segment": ["cold", "cold", "mobile", "mobile"]})
    assert two_queries().by_segment(segments).to_pylist() == [
        {"segment": "(none)", "queries": 1, "P@1": 0.0},
        {"segment": "cold", "queries": 2, "P@1": 0.5},
        {"segment": "mobile", "queries": 1, "P@1": 1.0},
    ]
    with pytest.raises(UserError, match="same segment twice"):
        two_queries().by_segment(pa.concat_tables([segments, segments]))


def test_items_of_a_segment_keep_their_ranks() -> None:
    run = recommended(("u", "a", 2), ("u", "b", 1), ("v", "a", 1))
    truth = relevant(("u", "a", 1), ("u", "b", 1), ("v", "a", 1), ("v", "c", 0))
    items = pa.table({"item_id": ["a", "b", "c"], "segment": ["warm", "cold", "none"]})
    assert evaluate_by_item_segment(run, truth, items, ("RR",)).to_pylist() == [
        {"segment": "cold", "queries": 1, "RR": 0.5},
        {"segment": "warm", "queries": 2, "RR": 1.0},
    ]


def test_bootstrap_intervals_hold_the_mean_and_do_not_depend_on_order() -> None:
    values = np.random.default_rng(3).integers(0, 11, 5_000) / 10
    found = mean_interval(values, samples=2_000)
    assert found == mean_interval(values[::-1], samples=2_000)
    spread = 1.96 * values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(found.mean - spread, abs=spread / 10)
    assert found.high == pytest.approx(found.mean + spread, abs=spread / 10)
    assert math.isnan(mean_interval(np.array([])).mean)
    with pytest.raises(UserError, match="makes no sense"):
        mean_interval(values, level=1.0)


def test_a_difference_is_paired_by_query() -> None:
    truth = relevant(*((f"q{n}", "a", 1) for n in range(50)))
    good = evaluate(recommended(*((f"q{n}", "a", 1) for n in range(50))), truth, ("P@1",))
    worse = evaluate(recommended(*((f"q{n}", "a", 1) for n in range(0, 50, 2))), truth, ("P@1",))
    found = good.difference(worse, "P@1")
    assert found.mean == 0.5
    assert 0.3 < found.low < 0.5 < found.high < 0.7
    assert good.interval("P@1").low == 1.0
    with pytest.raises(UserError, match="different queries"):
        good.difference(two_queries(), "P@1")
    with pytest.raises(UserError, match="no value for each query"):
        good.interval("R@1")
