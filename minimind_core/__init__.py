"""MiniMind LoRA workbook.

Question-answer data, LoRA fine-tuning and evaluation of a 26M-parameter chat model.
"""

__version__ = "0.19.0"
