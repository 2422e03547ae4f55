"""Models on disk: reading tensors by range, and placing them in weights; and back."""
