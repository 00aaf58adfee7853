"""Huge pages and the compilation cache, seen from inside processes that the command line starts.

A recipe is a Python file that the command runs, so the recipes here look around and print what they find.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import json, os, resource, sys, threading
def touch():
    bytearray(b"1") * (1 << 27)
def faults_of_a_thread():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def get_config():
    block = bytearray(1) * (1 << 27)  # from malloc, every page written to
    with open("/proc/self/smaps_rollup") as file:
        huge = sum(int(line.split()[1]) for line in file if line.startswith("AnonHugePages"))
    keys = ("GLIBC_TUNABLES", "JAX_COMPILATION_CACHE_DIR")
    del block
    faults_of_a_thread()
    print(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "huge_mib": huge / 1024,
                      "faults": faults_of_a_thread()}
                     | {key: os.environ.get(key) for key in keys}))
    raise SystemExit
"""
# Half of many blocks given back, which leaves as many holes.
HOLES = """
import ctypes, json, os, re, sys
from wastejax.runtime import process
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    with open("/proc/self/smaps_rollup") as file:
        return int(re.search(r"^Rss: +([0-9]+)", file.read(), re.M)[1]) / 1024
def get_config():
    size = 100_000
    blocks = [libc.malloc(size) for _ in range(4000)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[::2]:
        libc.free(block)
    before = resident()
    retired = process.retire_holes()
    print(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "retired": retired / 2**20,
                      "given_back": before - resident(), "again": process.retire_holes(),
                      "in_a_hole": min(blocks) <= libc.malloc(size) < max(blocks),
                      "kept": all(ctypes.string_at(b, size) == b"\\1" * size for b in blocks[1::2])}))
    raise SystemExit
"""
MODULE = ["-m", "wastejax.main"]


def machine_can() -> bool:
    """Whether this machine has something to gain: asked of the kernel and of the C library."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.is_file() or "[madvise]" not in setting.read_text():
        return False
    name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
    return name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)


def look(tmp_path: Path, *arguments: str, start=MODULE, text=LOOK, **variables: str) -> dict:
    recipe = tmp_path / "a recipe.py"
    recipe.write_text(text)
    env = {
        k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and not k.startswith(("WASTEJAX", "JAX"))
    }
    process = subprocess.Popen(
        [sys.executable, *start, f"--config={recipe}", *arguments],
        env=env | {"WASTEJAX_CACHE": str(tmp_path / "cache")} | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    seen = json.loads(out)
    assert seen["pid"] == process.pid
    assert seen["argv"] == [f"--config={recipe}", *arguments]
    return seen


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="asks the Linux kernel")
class TestHugePages:
    def test_a_command_has_them(self, tmp_path):
        seen = look(tmp_path, "--config.train.epochs=3")
        if machine_can():
            assert seen["GLIBC_TUNABLES"].startswith("glibc.malloc.hugetlb=1:")
            assert seen["huge_mib"] > 100
        else:
            assert seen["GLIBC_TUNABLES"] is None

    def test_the_console_command_too(self, tmp_path):
        script = tmp_path / "wastejax"
        script.write_text("import sys\nfrom wastejax.main import main\nsys.exit(main())\n")
        env = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        assert (look(tmp_path, start=[str(script)], **env)["huge_mib"] > 100) == machine_can()

    def test_tunables_of_the_user_stay(self, tmp_path):
        seen = look(tmp_path, GLIBC_TUNABLES="glibc.malloc.arena_max=3")["GLIBC_TUNABLES"]
        assert seen.split(":")[0] == "glibc.malloc.arena_max=3"
        assert ("glibc.malloc.hugetlb=1" in seen) == machine_can()
        assert "glibc.malloc.arena_max=1" not in seen
        mine = "glibc.malloc.hugetlb=0"
        assert look(tmp_path, GLIBC_TUNABLES=mine)["GLIBC_TUNABLES"] == mine

    def test_what_a_thread_gave_back_is_used_again(self, tmp_path):
        seen = look(tmp_path)
        assert (seen["faults"] < 10) == machine_can()

    def test_holes_are_retired_and_nothing_else(self, tmp_path):
        seen = look(tmp_path, text=HOLES)
        assert seen["kept"] and seen["again"] == 0
        if machine_can():
            assert 150 < seen["retired"] < 250 and seen["given_back"] > 100
            assert not seen["in_a_hole"]
        else:
            assert seen["retired"] == 0

    def test_off_switch(self, tmp_path):
        assert look(tmp_path, text=HOLES, WASTEJAX_HUGEPAGES="0")["retired"] == 0
        assert look(tmp_path, WASTEJAX_HUGEPAGES="0")["GLIBC_TUNABLES"] is None

    def test_another_program_that_calls_main_is_left_alone(self, tmp_path):
        seen = look(tmp_path, start=["-c", "from wastejax.main import main; main()"])
        assert seen["GLIBC_TUNABLES"] is None

    def test_a_variable_that_gets_lost_does_not_make_a_loop(self, monkeypatch):
        from wastejax.runtime import process

        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        monkeypatch.setenv("WASTEJAX_RESTARTED", str(os.getpid()))
        monkeypatch.setattr(process, "_helps", lambda: True)
        monkeypatch.setattr(process, "_is_command", lambda: True)
        monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started anew for ever"))
        process.use_huge_pages()


COMPILE = """
import jax
def get_config():
    print(jax.jit(lambda x: x * 3)(14))
    raise SystemExit
"""


def test_programs_are_compiled_once(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(COMPILE)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WASTEJAX", "JAX"))}
    env |= {"WASTEJAX_CACHE": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def run(**variables: str) -> list[Path]:
        command = [sys.executable, *MODULE, f"--config={recipe}"]
        done = subprocess.run(command, env=env | variables, capture_output=True, text=True, check=True)
        assert done.stdout == "42\n" and done.stderr == ""
        return list((tmp_path / "cache").rglob("*-cache"))

    assert run(WASTEJAX_COMPILATION_CACHE="0") == []
    first = run()
    assert len(first) >= 1 and first[0].parent.parent == tmp_path / "cache" / "xla"
    written = {path: path.stat().st_mtime_ns for path in first}
    assert {path: path.stat().st_mtime_ns for path in run()} == written


def test_a_cache_of_the_users_own_wins(tmp_path):
    assert look(tmp_path, JAX_COMPILATION_CACHE_DIR="/mine")["JAX_COMPILATION_CACHE_DIR"] == "/mine"
    ours = look(tmp_path)["JAX_COMPILATION_CACHE_DIR"]
    assert Path(ours).parent == tmp_path / "cache" / "xla"
