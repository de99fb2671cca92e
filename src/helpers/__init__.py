"""Shared helpers of the report, one room for each thing: see the README."""
