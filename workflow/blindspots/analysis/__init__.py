"""What networks and results are like: statistics, frame bounds, units. Arrays in, arrays out."""
