"""What the process needs around jax: huge pages of its own, a heap without holes, a cache of compiled programs.

All of it only makes things faster, so nothing here fails: where it cannot be had, the process goes on without.
"""

import ctypes
import mmap
import os
import platform
import sys
from pathlib import Path

from wastejax import machine

TUNABLE = "glibc.malloc.hugetlb"
STARTED_BY = "WASTEJAX_RESTARTED"  # process id of the one that has already been started anew
# Memory once had is kept: no block from mmap, none given back, and one heap for all threads, as a thread other than
# the main one has a small heap of its own and takes large blocks from mmap whatever the threshold.
_TUNABLES = {
    TUNABLE: 1,
    "glibc.malloc.mmap_threshold": 1 << 36,
    "glibc.malloc.trim_threshold": 1 << 36,
    "glibc.malloc.arena_max": 1,
}


def prepare() -> None:
    """Sets up pages and cache; to be called by the command line, before anything that takes long to import."""
    use_huge_pages()
    use_compilation_cache()


def use_huge_pages() -> None:
    """Starts the process anew with transparent huge pages for malloc, where that helps and was not asked against.

    XLA and PyTorch allocate their large temporary buffers anew in every step, and the kernel then fills them in
    page by page: with 4 KiB pages that took a third of a training step on the CPUs measured. glibc (2.35 and
    later) asks for 2 MiB pages where `glibc.malloc.hugetlb=1` stands in the environment, which it reads only as a
    process starts. Even those cost an eighth of a step to clear, so that malloc is also told to keep what it has:
    the peak of the process is the same, but it stays there. Process id, arguments and open files stay the same.
    WASTEJAX_HUGEPAGES=0 turns it off.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    # The process id guards against a loop where the loader drops the variable, as it does for privileged programs.
    again = TUNABLE in tunables or os.environ.get(STARTED_BY) == str(os.getpid())
    if again or os.environ.get("WASTEJAX_HUGEPAGES") == "0" or not (_helps() and _is_command()):
        return
    environment = os.environ | {"GLIBC_TUNABLES": with_huge_pages(tunables), STARTED_BY: str(os.getpid())}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError:
        return


def with_huge_pages(tunables: str) -> str:
    """Adds to a value of GLIBC_TUNABLES what it does not set itself."""
    added = (f"{name}={value}" for name, value in _TUNABLES.items() if name not in tunables)
    return ":".join([*filter(None, [tunables]), *added])


def has_huge_pages() -> bool:
    """Returns whether large buffers of this process lie in transparent huge pages."""
    return _kernel_setting() == "always" or (TUNABLE in os.environ.get("GLIBC_TUNABLES", "") and _helps())


class _MallocInfo(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>: `fordblks` bytes are free, `keepcost` of them at the heap's end."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


def retire_holes() -> int:
    """Takes the free blocks amid malloc's heap out of use for good, and gives their memory back to the kernel.

    Compiling a training step leaves a hundred thousand holes, a gigabyte in all. With one heap for all threads
    (see `_TUNABLES`) malloc then searches them, under a lock, at each of the ten thousand blocks that a step asks
    for: EfficientNetV2-B0 took 0.82 s a step on two cores, and 0.62 s without the holes. Only addresses are lost.
    Nothing happens where this process has no such heap, or less than 64 MiB lie in holes.

    Returns:
        Bytes retired.
    """
    if f"{TUNABLE}=1" not in os.environ.get("GLIBC_TUNABLES", "") or not _helps():
        return 0
    libc, page = ctypes.CDLL(None), mmap.PAGESIZE
    libc.mallinfo2.restype = _MallocInfo
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_ssize_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    info = libc.mallinfo2()
    if info.fordblks - info.keepcost < 64 << 20:
        return 0
    # What malloc takes from beyond the last block, the heap's growing end, was in no hole.
    end = libc.sbrk(0) - info.keepcost
    size, retired = 1 << 26, 0
    while size >= 1 << 10:
        while (block := libc.malloc(size)) and block < end:
            retired += size
            first = -(-block // page) * page
            last = (block + size) // page * page
            if last > first:
                libc.madvise(first, last - first, mmap.MADV_DONTNEED)
        libc.free(block)
        size = size * 7 // 8
    return retired


def _helps() -> bool:
    """Returns whether malloc can ask for huge pages, and has to."""
    if not sys.platform.startswith("linux") or _kernel_setting() != "madvise":
        return False
    library, version = platform.libc_ver()
    return library == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= (2, 35)


def _kernel_setting() -> str:
    """Returns 'always', 'madvise' or 'never'; '' where there is no such setting."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return ""
    return text.partition("[")[2].partition("]")[0]


def _is_command() -> bool:
    """Returns whether this process is our command and nothing else: no test, notebook, debugger or program."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name == "wastejax.main"
    return Path(sys.argv[0]).name == "wastejax" and getattr(main, "__file__", None) == sys.argv[0]


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that the next start need not compile them again.

    It speaks to jax by its own environment variables: they work whether or not the command comes to need jax, and
    a setting of the user's wins. WASTEJAX_COMPILATION_CACHE=0 turns it off.
    """
    if os.environ.get("WASTEJAX_COMPILATION_CACHE") == "0":
        return
    from wastejax.data.cache import cache_dir, stamp

    # Programs compiled for one processor may not run on another that shares the home folder.
    stamped = stamp(platform.machine(), machine.processor(), sorted(machine.instructions()))
    folder = cache_dir() / "xla" / stamped
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # jax would warn of it for every program; what else the cache is for says it
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
