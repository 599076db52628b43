"""Data sets: their files, downloads, splits and distorted copies. No torch."""
