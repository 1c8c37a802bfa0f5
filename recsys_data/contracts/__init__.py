"""What is collected: one Open Data Contract Standard file per dataset, and the code that reads them.

Everything else is derived from these files: table schemas, row rules and their reasons, checks, freshness
policies and what the UI shows. There is no second place to register a dataset, a column or a rule.
"""

from recsys_data.contracts.load import load_contract, load_contracts
from recsys_data.contracts.model import Column, Contract, Kind, Rule

__all__ = ["Column", "Contract", "Kind", "Rule", "load_contract", "load_contracts"]
