"""Solvers of numerical problems that know nothing of networks: minimisers, projections, sums."""
