"""What features should be, in plain Python over lists of rows, one feature and one moment at a time.

It shares no code with the product: every condition is written out as the definition has it.
"""

import hashlib
import math
from fractions import Fraction

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000


def hop_of(kind, size):
    if kind == "lifetime" or size > 12 * DAY:
        return DAY
    return HOUR if size > 12 * HOUR else 5 * MINUTE


def owner_at(row, moment, merges):
    """The user that a row belongs to at a moment."""
    if row["user_id"] is not None:
        return row["user_id"]
    known = [m for m in merges if m["anonymous_id"] == row["anonymous_id"] and m["known_at"] <= moment]
    return max(known, key=lambda m: (m["known_at"], m["user_id"]))["user_id"] if known else None


def counts(row, moment, window, delay, commit):
    kind, size = window
    cutoff = moment - delay
    if row["ts"] >= cutoff or (commit and row["known"] > moment):
        return False
    if kind == "rolling":
        return row["ts"] >= cutoff - size
    if kind == "sawtooth":
        hop = hop_of(kind, size)
        return row["ts"] >= (cutoff - size) // hop * hop
    return True


def value(function, rows, moment, delay, column="value", n=None, half_life=None):
    """The value of a function over the rows that count; `column` None counts rows."""
    rows = sorted(rows, key=lambda r: (r["ts"], r["partition"], r["offset"]))
    values = [r[column] for r in rows if r[column] is not None] if column else rows
    if function == "count":
        return len(values)
    if function == "approx_count_distinct":
        hashes = {int.from_bytes(hashlib.md5(v.encode()).digest()[8:], "little") >> 1 for v in map(str, values)}
        if len(hashes) < 256:
            return len(hashes)
        return round(255 * 2.0**63 / sorted(hashes)[255])
    if not values:
        return None
    if function == "last_n":
        return values[::-1][:n]
    if function in ("min", "max"):
        return (min if function == "min" else max)(values)
    if function in ("first", "last"):
        return values[0 if function == "first" else -1]
    if function == "decayed_sum":
        return sum(r[column] * 2 ** (-(moment - r["ts"]) / half_life) for r in rows if r[column] is not None)
    exact = [Fraction(str(v)) for v in values]
    if function == "sum":
        return float(sum(exact)) if isinstance(values[0], float) else int(sum(exact))
    if function == "avg":
        return float(sum(exact) / len(exact))
    if function == "stddev":
        if len(exact) < 2:
            return None
        mean = sum(exact) / len(exact)
        return math.sqrt(sum((v - mean) ** 2 for v in exact) / (len(exact) - 1))
    raise AssertionError(function)


def over_states(function, states, moment, window, delay=0):
    """A function over the states (from, to or None, value) of one entity, weighted by how long each held."""
    end = moment - delay
    held = [
        (value, min(to if to is not None else end, end) - max(begins, end - window))
        for begins, to, value in states
        if value is not None and begins < end and (to is None or to > end - window)
    ]
    held = sorted((value, weight) for value, weight in held if weight > 0)
    if not held:
        return None
    if function == "avg":
        total = sum(weight for _, weight in held)
        return float(sum(Fraction(str(value)) * weight for value, weight in held) / total)
    if function == "median":
        half, below = Fraction(sum(weight for _, weight in held), 2), 0
        for value, weight in held:
            below += weight
            if below >= half:
                return value
    return {"min": held[0][0], "max": held[-1][0]}[function]
