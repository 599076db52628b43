"""Image sets: their files, downloads, splits and distorted copies. This package does not use torch."""
