"""Feature views, computed while events arrive and killed at each step: in the end they are what the events say."""

import json

from benchmarks.faults.harness.result import PATIENCE_SECONDS, Harness, Result
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

# One of a stream, with windows, and one with lists of what happened last.
VIEWS = ("item_engagement", "user_activity")
ROUNDS, EVENTS = 6, 60


def kill_features(harness: Harness, injections: int) -> Result:
    """Send events of several days, kill each computation at a step, compute again, and compare in the end."""
    result = Result("feature views killed at a step")
    places: list[str] = []
    while result.injections < injections and not result.problems:
        state = harness.state()
        for _ in range(ROUNDS):
            state.send(EVENTS)
            result.sent += EVENTS
            result.require(state.ingest().wait() == 0, "events were not consumed")
            for _ in range(2):
                places = places or harness.rng.sample(PLACES["features"], len(PLACES["features"]))
                fault = Fault(places.pop(), harness.rng.randint(1, 4))
                child = state.command(
                    "features", "refresh", *VIEWS, prepare=lambda fault=fault: Steps("features", fault)
                )
                child.wait()
                result.injections += child.killed
                result.require(child.killed or not child.code, f"{fault}: {child.text()[-3000:]}")
        again = state.command("features", "refresh", *VIEWS)
        again.wait(PATIENCE_SECONDS)
        result.recoveries.append(again.seconds)
        result.require(again.code == 0, f"no recovery: {again.text()[-3000:]}")
        _compare(state, result)
        if not result.failed:
            state.remove()
    return result


def _compare(state: State, result: Result) -> None:
    """Compare what is stored with a join over all events, which reads no tiles."""
    report = state.folder / "features.json"
    child = state.child(lambda: report.write_text(json.dumps({name: different(name) for name in VIEWS})))
    if child.wait():
        result.problems.append(f"features cannot be read: {child.text()[-3000:]}")
        return
    for name, (rows, wrong) in json.loads(report.read_text()).items():
        result.require(rows > 0, f"{name} has no rows")
        result.require(wrong == 0, f"{wrong} of {rows} rows of {name} differ from what the events say")


def different(name: str) -> tuple[int, int]:
    """Rows of a view, and how many of them differ from a join over its events or are there twice."""
    from recsys_data.features.lake import join_features, open_features
    from recsys_data.operations.platform import opened
    from recsys_data.sql import quote
    from recsys_data.storage.query import data_files, relation

    with opened() as platform, open_features() as connection:
        table, view = platform.lake.table(name), platform.lake.contracts[name].view
        assert view is not None
        stored = relation(table, data_files(table))
        keys = ", ".join(map(quote, view.entity))
        spine = connection.sql(f"SELECT {keys}, feature_ts FROM ({stored}) ORDER BY ALL")
        joined = join_features(platform.lake, connection, spine, [name], known="event_time", timestamp="feature_ts")
        # Doubles that are summed in another order differ in the last digits.
        exact = [one.name for one in view.features if one.function != "decayed_sum" and one.type != "DOUBLE"]
        expected = ", ".join(quote(f"{name}__{one}") for one in exact)
        found = f"SELECT {keys}, feature_ts, {', '.join(map(quote, exact))} FROM ({stored})"
        wrong = f"({found}) EXCEPT ALL (SELECT {keys}, feature_ts, {expected} FROM ({joined.sql_query()}))"
        ((rows,),) = connection.execute(f"SELECT count(*) FROM ({stored})").fetchall()
        ((missing,),) = connection.execute(f"SELECT count(*) FROM ({wrong})").fetchall()
        ((twice,),) = connection.execute(
            f"SELECT count(*) FROM (SELECT {keys}, feature_ts FROM ({stored}) GROUP BY ALL HAVING count(*) > 1)"
        ).fetchall()
    return rows, missing + twice
