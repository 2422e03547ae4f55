"""Who judges which pair next, and what becomes of what they say."""
