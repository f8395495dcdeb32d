"""From a model and a dialogue to an answer: decoding, the claim check, and the Assistant that every surface
asks.
"""
