"""The storefront: simulated shop traffic to try everything with, and the truth to check the result against.

`simulate.simulate(Plan(events=…))` gives a planned run, `live.live(rate=…)` endless traffic; both yield
batches of log lines with the running `Truth`. What there is to learn is said in `world` and `behaviour`.
The same users and items stand in the shop's own systems, which change as time goes on: `shop.database` (its
application database), `shop.exports` (CRM, PIM and CMS, day by day).
"""
