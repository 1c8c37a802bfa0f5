"""Values of sources as the types of the contract, or the problem of their row."""
