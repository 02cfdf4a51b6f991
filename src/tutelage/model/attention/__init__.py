"""Attention inside the documents of a packed sequence: layouts, kernels, and the check that documents are isolated."""
