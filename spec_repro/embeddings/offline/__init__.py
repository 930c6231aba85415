"""Embeddings that need no download: descriptors, fitted ones, the miniature models."""
