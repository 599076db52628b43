"""Numerical solvers that do not depend on networks: minimisers, projections and sums."""
