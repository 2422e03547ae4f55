"""Text to tokens and back, in the family's dialogue formats."""
