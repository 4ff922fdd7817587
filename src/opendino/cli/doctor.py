"""`opendino doctor`: what this machine has and how fast it is, in words."""

from __future__ import annotations

import json as json_module
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from opendino.cli.arguments import Switch, parse_arguments
from opendino.cli.device import choose_device
from opendino.features.precision import DTYPES, good_dtype, in_dtype, is_faster
from opendino.files import free_bytes
from opendino.models.family import FAMILY, build_model
from opendino.weights.where import candidates, own_folder, search_folders

_LIBRARIES = (
    "torch",
    "numpy",
    "pillow",
    "safetensors",
    "kornia",
    "grain",
    "simplejpeg",
    "huggingface_hub",
    "transformers",
)
_MEASURE_S = 2.0
_SIDE_PX = 224
_NEEDED_BYTES = 2 << 30


@dataclass(frozen=True)
class DoctorArgs:
    """Say what this machine has: device, number formats, attention, versions, disk, weights, speed.

    Example: opendino doctor --json
    """

    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """One JSON object."""


@dataclass(frozen=True)
class Speed:
    """Images of 224 px a second through a ViT with random weights, without reading files.

    dtype: the one that `--dtype auto` takes here, by the rule of `features.precision`.
    """

    model: str
    dtype: str
    batch: int
    images_per_s: float


@dataclass(frozen=True)
class Diagnosis:
    """dtypes: number formats in which a product gave the right answer. memory_bytes: free, of the device.

    weights: name of the model -> where it lies. disk_bytes: free where downloads and runs go.
    """

    device: str
    device_name: str
    others: tuple[str, ...]
    cores: int
    memory_bytes: int
    dtypes: tuple[str, ...]
    attention: str
    versions: dict[str, str]
    disk_bytes: dict[str, int]
    weights: dict[str, str]
    speed: Speed


def doctor(device: str = "auto") -> Diagnosis:
    """Look and measure, for a few seconds; nothing is downloaded or written."""
    where = choose_device(device)
    dtypes = tuple(name for name in ("float32", "bfloat16", "float16") if _works(where, name))
    memory = _free_memory(where)
    return Diagnosis(
        device=str(where),
        device_name=torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine(),
        others=tuple(name for name in ("cuda", "mps", "cpu") if name != where.type and _present(name)),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=memory,
        dtypes=dtypes,
        attention=_attention(where),
        versions={name: found for name in _LIBRARIES if (found := _version(name))},
        disk_bytes={str(path): free_bytes(path) for path in (own_folder(), Path.cwd())},
        weights={name: str(path) for name, spec in FAMILY.items() for _, path in list(candidates(spec))[:1]},
        speed=_measure(where, memory),
    )


def run(argv: Sequence[str]) -> int:
    """Parse and print; returns the exit code."""
    args = parse_arguments(DoctorArgs, argv, "doctor")
    found = doctor(args.device)
    if args.json:
        print(json_module.dumps(asdict(found), indent=2))
        return 0
    for line in in_words(found):
        print(line)
    return 0


def in_words(found: Diagnosis) -> list[str]:
    """The diagnosis as sentences."""
    gib = 1 << 30
    lines = [f"device: {found.device} ({found.device_name}), {found.cores} CPU cores for this process"]
    if found.others:
        lines.append(f"also here: {', '.join(found.others)}")
    lines.append(f"memory: {found.memory_bytes / gib:.1f} GiB free")
    lines.append(f"number formats that give right answers: {', '.join(found.dtypes)}")
    lines.append(f"attention: {found.attention}")
    lines.append("versions: " + ", ".join(f"{name} {value}" for name, value in found.versions.items()))
    lines += [f"disk: {free / gib:.0f} GiB free for {path}" for path, free in found.disk_bytes.items()]
    lines += [f"weights: {name} at {path}" for name, path in found.weights.items()]
    if not found.weights:
        folders = ", ".join(str(folder) for _, folder in search_folders())
        lines.append(f"weights: none of the released models at hand; looked in {folders} and Hugging Face's cache")
    speed = found.speed
    lines.append(
        f"speed: {speed.images_per_s:.1f} images/s ({speed.model}, {_SIDE_PX} px, {speed.dtype} as embed takes by "
        f"itself here, batches of {speed.batch}, random weights, files not counted)"
    )
    name = next(iter(found.weights), None)
    lines.append(f"next: opendino weights {name}" if name else "next: opendino demo")
    return lines


def _present(name: str) -> bool:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(name, True)


def _works(device: torch.device, name: str) -> bool:
    """Whether a product of small whole numbers, exact in every format, comes out right."""
    numbers = torch.arange(64, dtype=torch.float32).reshape(8, 8) % 7
    try:
        part = numbers.to(device, getattr(torch, name))
        return torch.equal((part @ part).float().cpu(), numbers @ numbers)
    except (RuntimeError, TypeError, NotImplementedError):
        return False


def _attention(device: torch.device) -> str:
    """The fused kernel that serves this device, found by asking for each alone."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q = torch.randn(1, 2, 64, 64, device=device, dtype=dtype)
    engines = {
        SDPBackend.FLASH_ATTENTION: "flash (fused)",
        SDPBackend.CUDNN_ATTENTION: "cuDNN (fused)",
        SDPBackend.EFFICIENT_ATTENTION: "memory-efficient (fused)",
    }
    for backend, words in engines.items():
        try:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(q, q, q)
            return f"{words}, {str(dtype).removeprefix('torch.')}"
        except RuntimeError:
            continue
    return "plain, not fused: memory grows as the square of the number of patches"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _measure(device: torch.device, memory: int) -> Speed:
    """A small ViT for about two seconds; the smallest of ours where memory is short."""
    name = "vits16" if memory > _NEEDED_BYTES else "vit_tiny"
    batch = 64 if device.type == "cuda" else 4
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        model: Any = build_model(name).to(device).eval()
        images = torch.randn(batch, 3, _SIDE_PX, _SIDE_PX, device=device)
        dtype = good_dtype(device)
        smaller = in_dtype(model, dtype)
        if dtype != "fp32" and device.type == "cpu" and not is_faster(model, smaller, dtype, images):
            dtype, smaller = "fp32", model
        model, images = smaller, images.to(DTYPES[dtype])
        model(images)
        _wait(device)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < _MEASURE_S:
            model(images)
            _wait(device)
            count += batch
        return Speed(name, dtype, batch, count / (time.perf_counter() - start))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
