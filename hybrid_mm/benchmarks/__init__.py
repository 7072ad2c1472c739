"""Benchmarks that compare several ways to compute the same thing in one run."""
