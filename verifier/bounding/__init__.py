"""Bounds of every value of a network over boxes of inputs: interval, forward, backward."""
