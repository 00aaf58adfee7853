import os

import pytest

from wastejax import machine

X86 = "processor\t: 0\nmodel name\t: AMD EPYC 9V74: 80-Core\nflags\t\t: fpu avx2 {}\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd {}\n"


@pytest.fixture
def told(tmp_path, monkeypatch):
    def write(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
        machine._lines.cache_clear()

    yield write
    machine._lines.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format("avx512_vnni"), True),
        (X86.format("avx_vnni"), True),
        (X86.format("avx512f"), False),
        (ARM.format("asimddp"), True),
        (ARM.format("crc32"), False),
    ],
)
def test_whether_int8_can_be_fast(told, text, expected):
    told(text)
    assert machine.multiplies_bytes() is expected


def test_name_and_instructions(told):
    told(X86.format("avx512f"))
    assert machine.processor() == "AMD EPYC 9V74: 80-Core"
    assert machine.instructions() == {"fpu", "avx2", "avx512f"}


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert machine.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == 64
