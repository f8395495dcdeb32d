"""The network, its adapters, tokenizer and files."""
