"""Measurements of walstream against PostgreSQL's own programs, as paired ratios."""
