"""What a sample is: columns and units, batches, ASE frames, ragged rows, hashes, splits, geometry."""
