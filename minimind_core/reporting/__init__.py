"""Scores to figures, PDF, video and the zip that is handed in.

Numbers come from report/results/ only.
"""
