"""Triton kernels, one module per op. Importing this package imports nothing; its modules, but _shapes, need Triton."""
