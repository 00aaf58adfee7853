"""The processes of one run meet before jax connects them: all there, each once, told the same.

jax itself waits for minutes where that is not so, and then aborts with a stack trace. Process 0 listens on the port
that it will give to jax; each other one says who it is, and all are told how it went.
"""

import json
import os
import socket
import time
from contextlib import ExitStack

from wastejax.errors import UserError

_ALL_HERE = "all here"


def meet(host: str, port: int, processes: int, process: int, patience: float) -> None:
    """Returns once all processes have come.

    Args:
        host: of process 0.
        port: likewise; free again on return.
        processes: how many there are.
        process: which of them this is, from 0.
        patience: seconds to wait for the others.

    Raises:
        UserError: some did not come, came twice or were told another number of processes; process 0 cannot be
            reached, or cannot listen. Every process that came gets the same reason.
    """
    verdict = (
        _gather(port, processes, patience)
        if process == 0
        else _report(host, port, processes, process, patience)
    )
    if verdict != _ALL_HERE:
        raise UserError(f"--coordinator={host}:{port}: {verdict}")


def _gather(port: int, processes: int, patience: float) -> str:
    """Returns what all are told."""
    deadline = time.monotonic() + patience
    come, verdict = {0}, ""
    with ExitStack() as stack:
        server = stack.enter_context(_listen(port))
        connections = []
        while not verdict and len(come) < processes:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(5)
                process, told = json.loads(connection.makefile().readline())
            except TimeoutError:
                if time.monotonic() >= deadline:
                    missing = ", ".join(str(k) for k in range(processes) if k not in come)
                    verdict = f"waited {patience} s in vain for --process={missing}"
                continue
            except (OSError, ValueError, TypeError):
                continue  # a stranger at the port
            connections.append(connection)
            if told != processes:
                verdict = (
                    f"process 0 has --processes={processes}, process {process} has {told}; give all the same"
                )
            elif process in come:
                verdict = f"--process={process} came twice"
            come.add(process)
        verdict = verdict or _ALL_HERE
        for connection in connections:
            try:
                connection.sendall(f"{verdict}\n".encode())
            except OSError:
                verdict = "a process went away again"
    return verdict


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"--coordinator: cannot listen on port {port}: {os.strerror(error.errno or 0)}"
        ) from error


def _report(host: str, port: int, processes: int, process: int, patience: float) -> str:
    """Returns what process 0 answers."""
    with _reach(host, port, patience) as connection:
        try:
            connection.settimeout(patience + 10)  # process 0 began to wait before this
            connection.sendall(f"{json.dumps([process, processes])}\n".encode())
            answer = connection.makefile(errors="replace").readline().strip()
        except OSError:
            answer = ""
    return answer if answer.isprintable() and answer else "process 0 gives no answer; is it another program?"


def _reach(host: str, port: int, patience: float) -> socket.socket:
    """Returns a connection to process 0, which may start later than this one."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection((host, port), timeout=5)
        except socket.gaierror as error:
            raise UserError(f"--coordinator={host}:{port}: no such host") from error
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"--coordinator={host}:{port}: process 0 does not answer ({error.strerror or error}); "
                    "is it running, and is the port open to this machine?"
                ) from error
        time.sleep(0.2)
