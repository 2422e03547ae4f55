"""The pages of a collection: for annotators, and for whoever leads them."""
