import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wastejax.data.images import BadImage
from wastejax.data.workers import Workers
from wastejax.errors import UserError


def counting(first, step, stop):
    return lambda: iter(range(first, stop, step))


def test_they_take_turns_until_one_ends():
    assert list(Workers([counting(k, 3, 10) for k in range(3)])) == list(range(10))
    assert list(Workers([counting(0, 2, 1), counting(1, 2, 1)])) == [0]


def test_what_goes_wrong_there_is_raised_here_with_its_place():
    def damaged():
        yield 1
        raise BadImage("truncated")

    workers = Workers([damaged])
    assert next(workers) == 1
    with pytest.raises(BadImage, match="truncated") as raised:
        next(workers)
    assert "in damaged" in raised.value.__notes__[0]
    with pytest.raises(StopIteration):
        next(workers)


def endless():
    """Larger than any pipe: the process is always in the middle of sending one."""
    while True:
        yield np.zeros(4 << 20, np.uint8)


def test_a_killed_process_is_noticed_in_the_middle_of_an_answer():
    workers = Workers([lambda: endless()])
    assert next(workers).nbytes == 4 << 20
    os.kill(workers._processes[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"exit code -9.*--config\.data\.workers=0"):
        for _ in range(3):
            next(workers)


def test_they_stay_for_ctrl_c_and_end_when_closed():
    workers = Workers([lambda: endless()])
    next(workers)
    process = workers._processes[0]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
    for _ in range(5):
        next(workers)
    workers.close()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(StopIteration):
        next(workers)


ASKS = """
import sys, time
from test_workers import Workers, endless
if __name__ == '__main__':
    workers = Workers([endless, endless])
    next(workers)
    print(*[p.pid for p in workers._processes], flush=True)
    time.sleep(float(sys.argv[1]))
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # nobody may have collected it yet
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("killed", [True, False])
def test_they_end_with_the_process_that_asks(tmp_path, killed):
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, script, "600" if killed else "0"]
    asks = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    pids = [int(pid) for pid in asks.stdout.readline().split()]
    assert len(pids) == 2
    if killed:
        assert not any(gone(pid) for pid in pids)
        asks.kill()
    asks.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


UNGUARDED = """
import sys
from wastejax.data.workers import Workers
print("begins", __name__, flush=True)
class Odd(Exception):
    pass
def double(number):
    if number == 2:
        raise Odd(number)
    return 2 * number
workers = Workers([lambda: map(double, range(5))])
try:
    for value in workers:
        print(value)
except Odd as error:
    print("odd", error)
main = sys.modules["__main__"]
print(main.__spec__.name if main.__spec__ else main.__file__.endswith("program.py"))
"""


@pytest.mark.parametrize("start", [["program.py"], ["-m", "program"]], ids=["script", "module"])
def test_a_program_without_a_guard_runs_once_and_sends_what_it_defines(tmp_path, start):
    (tmp_path / "program.py").write_text(UNGUARDED)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, *start], cwd=tmp_path, env=env, capture_output=True, text=True)
    last = "program" if start[0] == "-m" else "True"
    assert done.stdout.split() == ["begins", "__main__", "0", "2", "odd", "2", last], done.stderr
