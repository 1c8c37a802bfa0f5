"""The Dagster UI that `recsys-data up` serves: Dagster's own web application behind checks.

Dagster's webserver has no login, answers any `Host`, and executes mutations that any web page sends by GET. Here every
request has to name an address of ours (`address.py`), must not come from another site, and carries the token of the
state folder (`token.py`); `protection.py` applies these checks to HTTP and websockets.

Run it alone: `python -m recsys_data.operations.ui --workspace data/workspace.yaml --port 3000`.
"""
