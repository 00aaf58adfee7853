"""What machine this is: its processor, the instructions that has, and the cores that this process may use."""

import os
import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Dot products of 8 bits in one instruction: x86's VNNI and AMX, and ARM's.
BYTE_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def cores() -> int:
    """Returns how many processor cores this process may use: in a container, fewer than the host has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Returns the processor's name, as far as the system tells it."""
    return _field("model name") or platform.processor() or platform.machine()


def hardware(device: str = "") -> str:
    """Returns what to say of the machine that measured something: the device or processor, its cores and kind."""
    return f"{device or processor()}, {cores()} cores, {platform.machine()}"


def instructions() -> frozenset[str]:
    """Returns what the processor says that it can do, such as 'avx2'; nothing where the system does not tell."""
    return frozenset((_field("flags") or _field("Features")).split())


def multiplies_bytes() -> bool:
    """Returns whether the processor has dot products of 8 bits, without which int8 is no faster than float32."""
    return bool(BYTE_PRODUCTS & instructions())


@cache
def _lines() -> list[str]:
    try:
        return CPUINFO.read_text().splitlines()
    except OSError:
        return []


def _field(name: str) -> str:
    """Returns what the first processor's entry says under a name."""
    fields = (line.partition(":") for line in _lines())
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")
