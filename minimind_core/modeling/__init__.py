"""The network in plain formulas, LoRA, tokenizer and file formats.

A faster way to compute the same goes into fast.py; a new export format is one entry of exporting.FORMATS.
"""
