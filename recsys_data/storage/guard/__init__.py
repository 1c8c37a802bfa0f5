"""Queries of others: SQL that may only read, and the kernel that holds it to that."""
