"""Scores to figures, PDF and zip."""
