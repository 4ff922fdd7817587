"""PyTorch pickles are read in a process of their own, with limits; tensors alone come back, as safetensors.

`main` is what that process runs: it reads by `pickles`, writes a file, or says on standard output why it did not.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from opendino.errors import WeightsError
from opendino.weights.pickles import FIX, read_pickle

# Room for the file mapped, its tensors and their copy on the way out, and seconds for the slowest disk that is usable.
MEMORY_SHARE, MEMORY_MORE = 3, 512 << 20
LEAST_SECONDS, BYTES_PER_SECOND = 120, 10_000_000
REFUSED = 3
# What Python reports when code does more than compute; reading tensors needs none of it.
_NEVER = ("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "ctypes.dlopen")


def read_apart(path: Path, folder: Path) -> Path:
    """Read an untrusted pickle in a child process; the safetensors file that it wrote into `folder`.

    Raises WeightsError in one line, as `read_pickle` does, or when the child needs too much memory or time.
    """
    out = folder / "tensors.safetensors"
    # The modules that this process uses, whatever lies in the working directory; no card, one thread.
    own = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    code = f"import sys; from {__name__} import main; sys.exit(main(*sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", code, str(path.resolve()), str(out)]
    seconds = LEAST_SECONDS + path.stat().st_size / BYTES_PER_SECOND
    try:
        done = subprocess.run(
            command, env=os.environ | own, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(path, f"is a pickle that takes more than {seconds:.0f} s to read: refused", FIX) from None
    if done.returncode == 0:
        return out
    if done.returncode == REFUSED:
        cause, _, fix = done.stdout.decode(errors="replace").partition("\n")
        raise WeightsError(path, cause[:500], fix[:200])
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    ended = f"signal {-done.returncode}" if done.returncode < 0 else (last or ["no word"])[0][:120]
    raise WeightsError(path, f"is a pickle that ended the process that read it ({ended}): refused", FIX)


def main(path: str, out: str) -> int:
    """The child: 0 when `out` holds the tensors, else REFUSED with cause and fix on standard output, a line each."""
    _limit(Path(path).stat().st_size)
    sys.addaudithook(_guard)
    try:
        convert(Path(path), Path(out))
    except WeightsError as error:
        print(error.cause, error.fix, sep="\n")
        return REFUSED
    return 0


def convert(path: Path, out: Path) -> None:
    """A pickle's tensors as a safetensors file. Raises WeightsError for what is unsafe or damaged."""
    save_file(_unshared(read_pickle(path), path), out)


def _unshared(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Tensors that own their memory, as safetensors wants it; many that share a little could fill the disk."""
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > MEMORY_SHARE * path.stat().st_size:
        raise WeightsError(path, f"holds tensors of {total} bytes, more than the file explains: refused", FIX)
    seen: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
        tensors[name] = tensors[name].contiguous()
    return tensors


def _limit(size: int) -> None:
    """Memory and file size by what the file explains; no core dump of its content. Without effect on Windows."""
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_SHARE * size + MEMORY_MORE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(OSError, ValueError):
        most = (MEMORY_SHARE + 1) * size + (64 << 20)  # beside the tensors, a header with 100,000 names
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """A second lock behind `weights_only`: the child starts nothing and calls nobody."""
    if event.startswith(_NEVER):
        raise RuntimeError(f"{event} is refused here")
