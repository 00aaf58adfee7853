"""Signals: answered at once where nothing is lost, after the step elsewhere, and again at once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wastejax.runtime.stop import Stop

ROOT = Path(__file__).resolve().parents[2]
# OpenSSL's loop is one instruction to Python, in which its own handlers wait, as they do for XLA's compiler.
LONG = "hashlib.pbkdf2_hmac('sha256', b'', b'', 400_000_000)"


def signalled(code: str, numbers: list[int]) -> tuple[int, list[str]]:
    """Runs code in a process that is sent the next signal for each line 'now' or 'stopping …' that it says."""
    start = f"""
import hashlib, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from wastejax.main import say
from wastejax.runtime.stop import Stop
"""
    process = subprocess.Popen([sys.executable, "-c", start + code], stdout=subprocess.PIPE, text=True)
    lines, left = [], list(numbers)
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        if left and line.startswith(("now", "stopping")):
            process.send_signal(left.pop(0))
    process.communicate(timeout=60)
    return process.returncode, lines


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_is_answered_in_the_midst_of_one_long_instruction(number, code):
    ended, lines = signalled(f"with Stop(say, exits=True): say('now'); {LONG}; say('late')", [number])
    assert ended == code
    assert lines == ["now", "stopped; nothing was trained yet; the same command begins anew"]


def test_where_something_would_be_lost_the_first_waits_and_the_second_does_not():
    code = f"""
with Stop(say, exits=True) as stop, stop.after_the_step():
    stop.code = 0
    say("now")
    while not stop.requested:
        time.sleep(0.01)
    {LONG}
    say("late")
"""
    ended, lines = signalled(code, [signal.SIGTERM, signal.SIGINT])
    assert ended == 0 and lines[0] == "now" and "late" not in lines
    assert lines[1].startswith("stopping after the step under way") and lines[-1].startswith("stopped; ")


def test_a_stop_that_was_asked_for_is_not_kept_waiting_by_a_compilation():
    code = """
with Stop(say, exits=True) as stop, stop.after_the_step():
    say("now")
    while not stop.requested:
        time.sleep(0.01)
    with stop.at_once():
        say("late")
"""
    ended, lines = signalled(code, [signal.SIGTERM])
    assert ended == 143 and "late" not in lines and lines[-1].startswith("stopped; ")


def test_a_program_that_is_not_ours_to_end_gets_its_keyboard_interrupt():
    # What a shell starts in the background ignores SIGINT, and so would this test's process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), Stop(said.append) as stop:
        with stop.after_the_step():
            signal.raise_signal(signal.SIGTERM)
            assert stop.requested and said[0].startswith("stopping after the step")
            stop.requested = False
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_not_ours_is_told_after_the_stop_that_it_asked_for(number):
    """Or a script with a loop over recipes would go on with the next one."""
    heard: list[int] = []
    before = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        with Stop(lambda line: None) as stop:
            with stop.after_the_step():
                signal.raise_signal(number)
            assert stop.requested and heard == []  # a checkpoint is written here
        assert heard == [number]
        with pytest.raises(ValueError, match="of the loop"), Stop(lambda line: None) as stop:
            with stop.after_the_step():
                signal.raise_signal(number)
            raise ValueError("a fault of the loop")
        with Stop(lambda line: None) as stop, stop.after_the_step():
            signal.raise_signal(number)
            with stop.at_once():
                assert heard == [number] * 2
        assert heard == [number] * 2  # once for each signal
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so_in_a_program_that_is_not_ours():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop(lambda line: None) as stop, stop.after_the_step():
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
