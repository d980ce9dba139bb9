"""Doubles and builders for tests: for walstream's own, and for those of its users."""
