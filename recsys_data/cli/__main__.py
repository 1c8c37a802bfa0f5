"""`python -m recsys_data.cli` is `recsys-data`; `recsys-data up` starts its processes this way."""

from recsys_data.cli import main

main()
