"""The method (paper, sections 3 to 5); numpy, scipy and torch alone."""
