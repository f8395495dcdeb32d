"""Named runs that differ from the default in a few settings, and what they teach."""
