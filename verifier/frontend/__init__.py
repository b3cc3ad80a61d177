"""Reading: networks (ONNX), properties (VNN-LIB), and the replay of one against the other."""
