"""Named runs with a few settings changed, alone or many at once, and what became of the log's riddles.

A new experiment is a table in experiments.toml, the package's or the team's.
"""
