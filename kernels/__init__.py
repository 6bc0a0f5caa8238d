"""Triton kernels, one module per op. Importing this package imports nothing; importing a module of it needs Triton."""
