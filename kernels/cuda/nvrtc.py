"""Compiling without a device: NVRTC by itself, and what its report says of a kernel.

NVRTC needs no driver, only the wheel ``nvidia-cuda-nvrtc`` (the extra ``dev``). The tests compile
every kernel with it; runs compile through CuPy, see `flowsim.kernels.cuda.compiler`.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path


class CompilationError(RuntimeError):
    """A source that NVRTC refuses; its text is the compiler's log."""


@dataclass(frozen=True)
class Resources:
    """What a kernel takes of a multiprocessor, from the compiler's report.

    Attributes
    ----------
    registers : int
        A thread.
    spilled, stack : int
        Bytes of local memory a thread, for what found no register and for arrays.
    shared : int
        Bytes of static shared memory a block.
    """

    registers: int
    spilled: int
    stack: int
    shared: int


def library_path() -> Path | None:
    """Where NVIDIA's wheels have put NVRTC; None without them."""
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = sorted(Path(folder).glob("*/lib/libnvrtc.so.*"))
        if found:
            return found[-1]
    return None


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    if path is None:
        raise CompilationError("no NVRTC; pip install nvidia-cuda-nvrtc installs it")
    # The compiler looks for its own built-in headers by name: they must be loaded before.
    for builtins in sorted(path.parent.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def compile_source(
    source: str, options: Sequence[str], architecture: str
) -> tuple[bytes, dict[str, Resources]]:
    """Compile a source for one architecture.

    Parameters
    ----------
    source : str
    options : sequence of str
        Of the compiler.
    architecture : str
        For example ``sm_90``.

    Returns
    -------
    bytes
        The binary (cubin).
    dict of str to Resources
        By the kernels' names.

    Raises
    ------
    CompilationError
        If it does not compile, or there is no NVRTC.
    """
    library = _library()
    program = ctypes.c_void_p()
    text = source.encode()
    library.nvrtcCreateProgram(ctypes.byref(program), text, b"flowsim.cu", 0, None, None)
    try:
        given = [*options, f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
        array = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
        failed = library.nvrtcCompileProgram(program, len(given), array)
        log = _read(library, program, "ProgramLog").decode(errors="replace").rstrip("\0\n")
        if failed:
            raise CompilationError(log)
        return _read(library, program, "CUBIN"), resources(log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def resources(log: str) -> dict[str, Resources]:
    """What the compiler's report says, by the kernels' names.

    Parameters
    ----------
    log : str
        Of ``ptxas -v``.
    """
    found: dict[str, Resources] = {}
    parts = re.split(r"Compiling entry function '(\w+)'", log)
    for name, part in zip(parts[1::2], parts[2::2], strict=True):
        found[name] = Resources(
            registers=_number(r"Used (\d+) registers", part),
            spilled=_number(r"(\d+) bytes spill stores", part),
            stack=_number(r"(\d+) bytes stack frame", part),
            shared=_number(r"(\d+) bytes smem", part),
        )
    return found


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0
