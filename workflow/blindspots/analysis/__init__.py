"""Properties of networks and results: statistics, frame bounds and units, from arrays to arrays."""
