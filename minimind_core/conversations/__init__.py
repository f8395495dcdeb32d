"""Facts to chat JSONL; imports no torch."""
