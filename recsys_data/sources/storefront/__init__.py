"""The storefront: simulated shop traffic to try everything with, and the truth to check the result against.

`simulate.simulate(Plan(events=…))` gives a planned run, `live.live(rate=…)` endless traffic; both yield
batches of log lines with the running `Truth`. What there is to learn is said in `world` and `behaviour`.
"""
