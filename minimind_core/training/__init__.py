"""JSONL to adapter."""
