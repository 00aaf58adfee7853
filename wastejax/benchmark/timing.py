"""Times that can be believed: what is compared runs interleaved, and a ratio comes with an interval.

A machine is never quiet: its clock, its neighbors and its memory change within minutes. Two things measured one
after the other differ by that alone. So everything that is to be compared takes turns, round by round, and a ratio
is taken within each round, where what slows one down slows the other too.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Makes this many calls and returns the seconds of each, from asking to having the whole answer.
Runner = Callable[[int], Sequence[float]]


class RunnerError(Exception):
    """A runner cannot go on; the message says why."""


@dataclass(frozen=True)
class Settings:
    """How things are measured.

    Attributes:
        threads: processor cores that each may use.
        rounds: turns for each.
        seconds: length of a turn.
        peer_python: the Python that has the other runtimes.
    """

    threads: int
    rounds: int = 15
    seconds: float = 0.5
    peer_python: str = sys.executable


MAX_CALLS = 200  # of one turn
PAUSE = 0.05  # seconds between turns: idle thread pools of the one before stop spinning


class Ratio(NamedTuple):
    """Time of one thing over that of another.

    Attributes:
        value: median over the rounds; below 1 the first is faster.
        low, high: 95 % bootstrap interval.
    """

    value: float
    low: float
    high: float


def interleave(
    runners: Mapping[str, Runner],
    rounds: int,
    seconds: float,
    after: Callable[[int], None] = lambda done: None,
    lost: Callable[[str, str], None] | None = None,
) -> dict[str, list[list[float]]]:
    """Runs all runners in turns.

    Every runner is warmed up first, and its number of calls per turn is chosen by how long one took. The order of
    turns is reversed in every other round, so that none always follows the same one. Where a turn has several
    calls, one more before them is not counted: it finds the caches full of what ran before.

    Args:
        runners: by name.
        rounds: turns that each gets.
        seconds: that a turn should take; it has at least one call.
        after: told how many rounds are done.
        lost: told which runner cannot go on, and why; the others do. None to give up with it.

    Returns:
        For each runner that came to the end one list of seconds a round.

    Raises:
        RunnerError: a runner cannot go on, and there is no `lost`.
        RuntimeError: a runner did not make the number of calls that it was asked for.
    """
    calls: dict[str, int] = {}
    times: dict[str, list[list[float]]] = {name: [] for name in runners}

    def warm_up(name: str) -> None:
        _checked(name, runners[name], 2)
        (took,) = _checked(name, runners[name], 1)
        calls[name] = int(np.clip(seconds / took, 1, MAX_CALLS))

    def turn(name: str) -> None:
        time.sleep(PAUSE)
        if calls[name] > 1:
            _checked(name, runners[name], 1)
        times[name].append(_checked(name, runners[name], calls[name]))

    def attempt(act: Callable[[str], None], name: str) -> None:
        try:
            act(name)
        except RunnerError as error:
            if lost is None:
                raise
            del times[name]  # also the rounds that it has: a ratio needs those of all
            lost(name, str(error))

    for name in runners:
        attempt(warm_up, name)
    for done in range(rounds):
        for name in list(times)[:: 1 if done % 2 == 0 else -1]:
            attempt(turn, name)
        after(done + 1)
    return times


def _checked(name: str, runner: Runner, calls: int) -> list[float]:
    times = list(runner(calls))
    if len(times) != calls:
        raise RuntimeError(f"{name}: asked for {calls} measured calls, got {len(times)}")
    return times


def ratio(times: Sequence[Sequence[float]], base: Sequence[Sequence[float]], resamples: int = 4000) -> Ratio:
    """Returns how long one thing takes, as a multiple of another.

    The median of each round's calls is divided by that of the same round; the interval is the percentile bootstrap
    (Efron 1979) of the median over rounds, with a fixed seed.

    Args:
        times: seconds, a list per round.
        base: of the other, in the same rounds.
        resamples: of the bootstrap.

    Raises:
        ValueError: they have not the same number of rounds.
    """
    quotients = np.array([np.median(a) / np.median(b) for a, b in zip(times, base, strict=True)])
    draws = np.random.default_rng(0).integers(len(quotients), size=(resamples, len(quotients)))
    low, high = np.percentile(np.median(quotients[draws], axis=1), (2.5, 97.5))
    return Ratio(float(np.median(quotients)), float(low), float(high))


def latency(times: Sequence[Sequence[float]]) -> dict[str, float]:
    """Returns {'p50', 'p90', 'p99'} of all calls, milliseconds."""
    p50, p90, p99 = np.percentile(np.concatenate([np.asarray(t) for t in times]) * 1e3, (50, 90, 99))
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99)}
