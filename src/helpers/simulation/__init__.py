"""Cohorts of known truth, and how the report's tests and intervals do on them."""
