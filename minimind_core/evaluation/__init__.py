"""Answers to scores: suites, grading, baselines without a model, intervals, the ledger of runs.

A new suite is one line of suites.SUITES and questions of its name.
"""
