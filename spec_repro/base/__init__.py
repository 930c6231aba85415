"""What every room stands on: typed errors, whole files, rows in batches, names."""
