"""What labels are worth: agreement, accuracy on gold pairs, biases, contradictions."""
