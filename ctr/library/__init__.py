"""The one door to the Transformer library: its architectures as encoders of sequences, and its decoding."""
