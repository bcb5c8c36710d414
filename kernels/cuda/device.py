"""What the backend asks of CuPy: a device, sums brought to the host, matrix products.

CuPy is imported when a device is asked for, and not before: without it everything installs.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from flowsim.errors import ConfigError

_REMEDY = "pip install 'flowsim[cuda13]' (drivers before 580: 'flowsim[cuda12]') installs it"

_FULL_PRECISION = 0
"""CUBLAS_DEFAULT_MATH: no TF32."""


def device_problem(device: int = 0) -> str:
    """Why a device cannot be used, in one line; empty if it can.

    Parameters
    ----------
    device : int
        Its number.
    """
    try:
        import cupy
    except ImportError as error:
        missing = error.name == "cupy" or "No module named 'cupy'" in str(error)
        return f"finds no CuPy; {_REMEDY}" if missing else f"cannot load CuPy: {error}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # no driver, no device, a wheel of another CUDA: all their own
        reason = str(error).splitlines()[0]
        return f'finds no device ({reason}); set integrate.backend = "cpu"'
    if device >= count:
        return f"finds {count} devices, counted from 0; set integrate.device below {count}"
    return ""


def use_device(device: int = 0) -> Any:
    """Make a device the present one of this thread; return the module ``cupy``.

    Raises
    ------
    ConfigError
        If there is no CuPy, or no such device.
    """
    if problem := device_problem(device):
        raise ConfigError(f'integrate.backend = "cuda": {problem}')
    import cupy

    cupy.cuda.Device(device).use()
    return cupy


def free_memory(device: int = 0) -> float:
    """Bytes that are free on a device, what CuPy's pool keeps for reuse among them."""
    cupy = use_device(device)
    free, _ = cupy.cuda.runtime.memGetInfo()
    return float(free + cupy.get_default_memory_pool().free_bytes())


def total_memory(device: int = 0) -> float:
    """Bytes of memory that a device has."""
    _, total = use_device(device).cuda.runtime.memGetInfo()
    return float(total)


def describe(device: int = 0) -> dict[str, Any]:
    """Name and compute capability of a device, versions of CuPy, CUDA and the driver."""
    cupy = use_device(device)
    runtime = cupy.cuda.runtime
    found = runtime.getDeviceProperties(device)
    name = found["name"]
    return {
        "gpu": name.decode() if isinstance(name, bytes) else str(name),
        "compute_capability": f"{found['major']}.{found['minor']}",
        "cupy": cupy.__version__,
        "cuda": int(runtime.runtimeGetVersion()),
        "driver": int(runtime.driverGetVersion()),
    }


def free_pool() -> None:
    """Give the memory that CuPy's pools keep for reuse back to the device."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


class Products:
    """Matrix products of blocks of columns, by cuBLAS in the full precision of the dtype.

    CuPy's own take contiguous matrices only, and may use TF32 for float32 if the environment says
    so.

    Parameters
    ----------
    cupy : module
    dtype : numpy.dtype
    """

    def __init__(self, cupy: Any, dtype: np.dtype) -> None:
        from cupy.cuda import cublas

        self._cupy, self._cublas, self._dtype = cupy, cublas, np.dtype(dtype)
        double = self._dtype == np.float64
        self._gemm = cublas.dgemm if double else cublas.sgemm
        number = ctypes.c_double if double else ctypes.c_float
        self._number = number
        self._zero, self._one = number(0.0), number(1.0)

    def _call(self, transposed: bool, sizes: tuple[int, int, int], alpha: float, a: Any, lda: int,
              b: Any, ldb: int, beta: Any, c: Any, ldc: int) -> None:  # fmt: skip
        """Column-major C (m, n) = alpha A (m, k) B or B^T (k, n) + beta C."""
        cublas = self._cublas
        handle = self._cupy.cuda.device.get_cublas_handle()
        mode = cublas.getMathMode(handle)
        cublas.setMathMode(handle, _FULL_PRECISION)
        factor = self._number(alpha)
        second = cublas.CUBLAS_OP_T if transposed else cublas.CUBLAS_OP_N
        try:
            self._gemm(
                handle, cublas.CUBLAS_OP_N, second, *sizes, ctypes.addressof(factor), a, lda,
                b, ldb, ctypes.addressof(beta), c, ldc,
            )  # fmt: skip
        finally:
            cublas.setMathMode(handle, mode)

    def forward(self, x: Any, d: int, w: int, ld: int, columns: int, z: Any) -> None:
        """z (n, columns) = x w, w (d, columns) at an address with rows ``ld`` apart.

        x (n, d or more), of whose rows the first d numbers count.
        """
        n, width = x.shape
        sizes = columns, n, d
        self._call(False, sizes, 1.0, w, ld, x.data.ptr, width, self._zero, z.data.ptr, columns)

    def backward(
        self, x: Any, d: int, g: Any, columns: int, factor: float, out: int, ld: int
    ) -> None:
        """Write factor x^T g (d, columns), g (n, columns), to an address with rows ``ld`` apart."""
        n, width = x.shape
        sizes = columns, d, n
        self._call(True, sizes, factor, g.data.ptr, columns, x.data.ptr, width, self._zero, out, ld)

    def add_gram(self, rows: Any, columns: int, out: Any) -> None:
        """Add rows rows^T (n, n) for rows (n, columns) to ``out``."""
        n = out.shape[0]
        # Column-major: A^T A with A (columns, n).
        cublas = self._cublas
        handle = self._cupy.cuda.device.get_cublas_handle()
        self._gemm(
            handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, n, n, columns,
            ctypes.addressof(self._one), rows.data.ptr, columns, rows.data.ptr, columns,
            ctypes.addressof(self._one), out.data.ptr, n,
        )  # fmt: skip
