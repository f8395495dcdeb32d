"""From a model and a dialogue to an answer.

Decoding, the claim check, and the Assistant that every surface asks.

The check looks at the fact table's keys; no rule for single questions belongs here.
"""
