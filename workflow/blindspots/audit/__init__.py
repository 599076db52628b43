"""The origin of the numbers: records, checks, recomputation, the audit page and the archive."""
