"""Prompt tuning for CLIP: trained vectors among the inputs of frozen towers, in place of updates of their weights."""
