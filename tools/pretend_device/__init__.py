"""A pretend accelerator: computes on the CPU, but refuses tensors of two devices as a graphics card does.

Importing it compiles device.cpp once for each version of PyTorch (a C++ compiler is needed) and makes it PyTorch's
accelerator, called "pretend". It finds places where a model on a card meets data that are not; rounding of a real card
it cannot show.
"""

import contextlib
import ctypes
import os
import subprocess
import tempfile
import types
import zlib
from pathlib import Path

import torch
from torch.utils.backend_registration import generate_methods_for_privateuse1_backend, rename_privateuse1_backend
from torch.utils.cpp_extension import include_paths, library_paths

SOURCE = Path(__file__).with_name("device.cpp")


def library(folder: Path) -> Path:
    """The compiled device for the installed PyTorch, in `folder`; compiled at the first call."""
    path = folder / f"pretend-{torch.__version__}-{zlib.crc32(SOURCE.read_bytes()):08x}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        headers = [f"-I{path}" for path in include_paths()]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
        libraries = [f"-L{library_paths()[0]}", "-lc10", "-ltorch_cpu"]
        compiler = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-w", abi, *headers]
        subprocess.run([*compiler, SOURCE, *libraries, "-o", part], check=True)
        os.replace(part, path)
    return path


def device_module(compiled: ctypes.CDLL) -> types.ModuleType:
    """What PyTorch asks of an accelerator's Python module."""
    module = types.ModuleType("torch.pretend")
    compiled.seed.argtypes = [ctypes.c_uint64]

    def manual_seed(value: int) -> None:
        compiled.seed(int(value) % 2**63)

    module.__dict__.update(
        manual_seed=manual_seed,
        manual_seed_all=manual_seed,
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        device=lambda index: contextlib.nullcontext(),  # what torch.load enters
        synchronize=lambda device=None: None,
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16],
        _is_in_bad_fork=lambda: False,
        _lazy_init=lambda: None,
    )
    return module


def install() -> None:
    """Makes it PyTorch's accelerator in this process."""
    path = library(Path(os.environ.get("PRETEND_DEVICE", tempfile.gettempdir())))
    torch.ops.load_library(path)
    rename_privateuse1_backend("pretend")
    torch._register_device_module("pretend", device_module(ctypes.CDLL(str(path))))
    generate_methods_for_privateuse1_backend()


install()
