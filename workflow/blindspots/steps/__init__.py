"""Common parts of all programs: artifacts, their records, and the arrays and networks in them."""
