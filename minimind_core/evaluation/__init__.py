"""Adapter to scores."""
