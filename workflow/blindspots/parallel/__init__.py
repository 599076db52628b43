"""Pieces of work on several cores, whose results do not depend on how many there are."""
