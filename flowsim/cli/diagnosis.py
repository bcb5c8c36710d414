"""What there is on this machine: the contents of ``flowsim doctor``.

Every part is looked up by itself; where one cannot be had its place holds ``{"error": why}``.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

Part = dict[str, Any]

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "h5py", "pydantic", "matplotlib")
VECTORS = ("avx512f", "avx2", "fma", "avx", "sse4.2", "sve2", "sve", "neon")
"""Features of LLVM that decide how wide the kernels' loops are, the widest first."""
VARIABLES = (
    "NUMBA_CACHE_DIR",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
    "NUMBA_DISABLE_JIT",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HDF5_USE_FILE_LOCKING",
)
_DRIVER_OF_CUDA_13 = 580
"""Drivers from this version on run programs of CUDA 13."""
_SYSTEM = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMORY = Path("/proc/meminfo")
_PROCESSOR = Path("/proc/cpuinfo")


def diagnose() -> dict[str, Part]:
    """Look everything up.

    Returns
    -------
    dict
        ``versions``, ``backends``, ``processor``, ``memory``, ``blas``, ``compiled``, ``gpu`` and
        ``environment``, each a dictionary that JSON can hold. Sizes are in bytes.
    """
    found: dict[str, Part] = {}
    parts: dict[str, Callable[[], Part]] = {
        "versions": versions,
        "gpu": gpu,
        "backends": lambda: backends(found["gpu"]),
        "processor": processor,
        "memory": memory,
        "blas": blas,
        "compiled": compiled,
        "environment": environment,
    }
    for name, look_up in parts.items():
        try:
            found[name] = look_up()
        except Exception as error:  # a library may fail in any way; the report must not
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    return found


def versions() -> Part:
    """Versions of flowsim, Python, the packages it stands on, and HDF5."""
    import h5py

    import flowsim

    return {
        "flowsim": flowsim.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in PACKAGES},
        "hdf5": h5py.version.hdf5_version,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def gpu() -> Part:
    """NVIDIA GPUs as the driver lists them, and as CuPy sees them."""
    listed = _listed_gpus()
    cupy = _cupy() if find_spec("cupy") else {"installed": False}
    driver = listed[0]["driver"].partition(".")[0] if listed else ""
    new = driver.isdigit() and int(driver) >= _DRIVER_OF_CUDA_13
    remedy = f"pip install 'flowsim[{'cuda13' if new else 'cuda12'}]'"
    return {"listed": listed, "cupy": cupy, "install": remedy}


def _listed_gpus() -> list[dict[str, str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    keys = ("name", "memory", "driver")
    return [dict(zip(keys, row, strict=True)) for row in rows if len(row) == len(keys)]


def _cupy() -> Part:
    try:
        cupy = import_module("cupy")
        runtime = cupy.cuda.runtime
        devices = []
        for number in range(runtime.getDeviceCount()):
            properties = runtime.getDeviceProperties(number)
            name = properties["name"]
            devices.append(
                {
                    "name": name.decode() if isinstance(name, bytes) else str(name),
                    "memory": int(properties["totalGlobalMem"]),
                    "compute_capability": f"{properties['major']}.{properties['minor']}",
                }
            )
    except Exception as error:  # no driver, no device, a wheel of another CUDA: all their own
        return {"installed": True, "error": f"{type(error).__name__}: {error}", "devices": []}
    return {"installed": True, "version": cupy.__version__, "devices": devices}


def backends(gpus: Part) -> Part:
    """Whether each backend can be used, and if not why."""
    from flowsim.kernels import BACKENDS

    found: Part = {}
    for name, (module, _) in BACKENDS.items():
        try:
            import_module(module)
            found[name] = {"available": True, "reason": ""}
        except Exception as error:  # as above: whatever keeps it from being imported
            found[name] = {"available": False, "reason": f"{type(error).__name__}: {error}"}
    cupy = gpus.get("cupy", {})
    if not cupy.get("installed"):
        reason = f"no CuPy; {gpus.get('install', 'pip install cupy')} installs it"
    elif "error" in cupy:
        reason = f"CuPy finds no device: {cupy['error']}"
    else:
        reason = "" if cupy["devices"] else "CuPy finds no device"
    if reason:
        found["cuda"] = {"available": False, "reason": reason}
    return found


def processor() -> Part:
    """Model, cores, caches, and the vector instructions that Numba's compiler uses."""
    from flowsim.kernels.cpu.threads import usable_cores

    found: Part = {
        "model": _model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "default_threads": usable_cores(),
        "caches": _caches(),
    }
    return found | _instructions()


def _model() -> str:
    try:
        text = _PROCESSOR.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name.group(1).strip() if name else platform.processor() or platform.machine()


def _instructions() -> Part:
    try:
        from llvmlite import binding

        features = dict(binding.get_host_cpu_features())
        name = str(binding.get_host_cpu_name())
    except Exception as error:  # LLVM cannot tell on every system
        return {"llvm_name": None, "vector": [], "error": f"{type(error).__name__}: {error}"}
    return {"llvm_name": name, "vector": [known for known in VECTORS if features.get(known)]}


def _caches() -> list[Part]:
    """Data caches of the first core that this process may use, as Linux describes them."""
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = []
    for folder in sorted((_SYSTEM / f"cpu{core}" / "cache").glob("index*")):
        try:
            level, kind, size, shared = (
                (folder / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size", "shared_cpu_list")
            )
            n_bytes = int(size.rstrip("KMG")) * units.get(size[-1:], 1)
        except (OSError, ValueError):
            continue
        if kind != "Instruction":
            found.append({"level": int(level), "bytes": n_bytes, "cores": shared})
    return found


def memory() -> Part:
    """Memory of the machine, what is available of it, and the limit of a container."""
    found: Part = {"total": None, "available": None, "limit": None}
    if hasattr(os, "sysconf"):
        found["total"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name, path, pattern, unit in (
        ("available", _MEMORY, r"^MemAvailable:\s+(\d+) kB", 1024),
        ("limit", _CGROUP, r"^(\d+)$", 1),
    ):
        try:
            text = path.read_text(encoding="ascii")
        except OSError:
            continue
        if number := re.search(pattern, text, re.MULTILINE):
            found[name] = unit * int(number.group(1))
    return found


def blas() -> Part:
    """The libraries of linear algebra that NumPy and SciPy have loaded."""
    import numpy  # noqa: F401 - loads its library
    import scipy.linalg  # noqa: F401 - loads its own
    from threadpoolctl import threadpool_info

    keys = {"internal_api": "library", "version": "version", "architecture": "kernels"}
    keys |= {"num_threads": "threads"}
    return {
        "libraries": [
            {ours: pool.get(theirs) for theirs, ours in keys.items()}
            for pool in threadpool_info()
            if pool.get("user_api") == "blas"
        ]
    }


def compiled() -> Part:
    """The folder where compiled kernels are kept, whether it can be written, what is in it."""
    import flowsim.kernels.cpu as kernels

    modules = [
        import_module(f"{kernels.__name__}.{one.name}") for one in iter_modules(kernels.__path__)
    ]
    folders = {
        Path(path)
        for module in modules
        for value in vars(module).values()
        if isinstance(path := getattr(getattr(value, "stats", None), "cache_path", None), str)
    }
    if not folders:
        return {"folder": None, "writable": None, "functions": 0}
    folder = sorted(folders)[0]
    files = [file for one in folders if one.is_dir() for file in one.glob("*.nbi")]
    return {"folder": str(folder), "writable": _writable(folder), "functions": len(files)}


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made where it does not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def environment() -> Part:
    """Variables that change what flowsim does or how fast, as far as they are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}
