"""Numba kernels: compiled once per dtype, cached on disk, parallel over blocks of neurons."""
