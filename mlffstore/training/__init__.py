"""Reading stores and releases for training."""
