"""Facts and persona to JSONL: questions drawn from a space, checked by the doctor, mixed by stated ratios.

Texts belong into data/ or a topic's own folder, never into the code; nothing here knows a topic or needs
torch.
"""
