"""Where the numbers come from: records, checks, recomputation, the page and the archive."""
