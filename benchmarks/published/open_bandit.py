"""Open Bandit Dataset: what the policy BernoulliTS is worth, from the log of the random policy.

Published: Saito, Aihara, Matsutani and Narita, https://arxiv.org/abs/2008.07146, and the example in the README of the
package `obp`, whose wheel holds a sample of the data and the prior that the shop used. The value of the policy, by
inverse propensity weighting, divided by that of the random one is 1.198126, over the campaign `all`.

Data flow: wheel -> `recsys-data load open-bandit` -> lake -> all parts of the training set that `open_bandit.yaml`
declares, built with `--known event_time --cutoff 2019-12-02` (or the answer of `ROWS`) -> `reproduce`.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from recsys_data.training.off_policy import Evaluation, evaluate

WHEEL = "obp==0.4.1"
DATA = "obp/dataset/obd"  # within the wheel; the path of `recsys-data load open-bandit`
PRIOR = "obp/policy/conf/prior_bts.yaml"
CAMPAIGN, LOGGED_BY = "all", "random"
PUBLISHED = 1.198126
POSITIONS = 3
SIMULATIONS, SEED = 100_000, 12345

ROWS = """
    SELECT i.item_id, i.position, i.propensity, i.recommendation_id, i.model, i.list_id,
        (c.recommendation_id IS NOT NULL)::DOUBLE AS label
    FROM interactions i LEFT JOIN
        (SELECT DISTINCT recommendation_id, item_id, position FROM interactions WHERE type = 'click') c
        USING (recommendation_id, item_id, position)
    WHERE i.type = 'impression' AND i.source = 'open-bandit'
"""


class Prior(NamedTuple):
    """A beta distribution of the click rate for each item; arrays of shape (items,)."""

    alpha: npt.NDArray[np.float64]
    beta: npt.NDArray[np.float64]


def read_prior(wheel: Path) -> Prior:
    """The shop's prior of the campaign, from the wheel or from the folder it was unpacked to."""
    if wheel.is_dir():
        text = (wheel / PRIOR).read_bytes()
    else:
        with zipfile.ZipFile(wheel) as archive:
            text = archive.read(PRIOR)
    found: dict[str, Any] = yaml.safe_load(text)[CAMPAIGN]
    return Prior(np.array(found["alpha"], float), np.array(found["beta"], float))


def thompson_sampling(prior: Prior, simulations: int = SIMULATIONS, seed: int = SEED) -> npt.NDArray[np.float64]:
    """How often Bernoulli Thompson sampling puts each item at each position, by simulation.

    Each time a click rate is drawn for every item, and the items with the highest are shown in that order.

    Returns:
        shares, shape (items, POSITIONS), whose columns sum to 1.
    """
    random = np.random.RandomState(seed)  # not default_rng: the published number was drawn with it
    counts = np.zeros((len(prior.alpha), POSITIONS))
    block = 10_000
    for start in range(0, simulations, block):
        size = (min(block, simulations - start), len(prior.alpha))
        rates = random.beta(prior.alpha, prior.beta, size=size)
        best = np.argsort(rates, axis=1)[:, ::-1][:, :POSITIONS]
        for position in range(POSITIONS):
            counts[:, position] += np.bincount(best[:, position], minlength=len(counts))
    return counts / simulations


def estimate(rows: pa.Table, prior: Prior) -> Evaluation:
    """Evaluate BernoulliTS on the logged impressions.

    Args:
        rows: impressions in any order: item_id, position, propensity, recommendation_id, model, list_id, label. Those
            of other policies and campaigns are left out.
        prior: of the policy.
    """
    logged = rows.filter((pc.field("model") == LOGGED_BY) & (pc.field("list_id") == CAMPAIGN))
    shares = thompson_sampling(prior)
    item = pc.replace_substring(logged["item_id"], f"{CAMPAIGN}-", "").cast(pa.int64()).to_numpy()
    position = logged["position"].to_numpy() - 1
    return evaluate(
        {
            "reward": logged["label"],
            "propensity": logged["propensity"],
            "target_probability": shares[item, position],
            "cluster_id": logged["recommendation_id"],
        }
    )


def reproduce(rows: pa.Table, prior: Prior) -> dict[str, tuple[float, float]]:
    """What was published and what comes out of the platform, by the name of the number."""
    found = estimate(rows, prior).estimates["ips"].relative
    return {"BernoulliTS on the random log, IPW relative value": (PUBLISHED, found or 0.0)}
