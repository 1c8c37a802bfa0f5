"""Visits of the storefront, as the lines that its clients send."""
