"""What the programs have in common: artifacts, their records, and how these become arrays and networks."""
