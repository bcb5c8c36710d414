"""The CUDA backend: CUDA C++ compiled by NVRTC, driven through CuPy."""
