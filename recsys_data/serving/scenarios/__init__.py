"""Scenarios: the places where items are recommended, each with its sources, filters, exploration and experiment."""
