"""Data that are generated or come with a package: planted truth, no download."""
