"""Rows to an adapter: batches, the one loop, run folders, several processes, and pretraining of a base.

The loop yields records; plotting, saving elsewhere and tracking are the caller's.
"""
