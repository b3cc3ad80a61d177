"""Which neuron or input to split: one rule a file; and the parts."""
