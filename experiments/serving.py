"""Nothing that a client sends may harm the server, and how fast it answers: experiments/results/serving.json.

Command: python experiments/serving.py [MODEL] [--requests=5000] [--seconds=8]
MODEL is a run, a bundle or an exported file; without it, the bundled model. The server runs as
`wastejax serve` does, in a process of its own; clients are threads of this one, on the same processor. Wants a
quiet machine for the load.
"""

import argparse
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.provenance import provenance
from wastejax import machine
from wastejax.data.drawing import dataset as synthetic
from wastejax.files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
CONCURRENCY = (1, 2, 4, 8, 16)
ROUNDS = 5  # of the fuzzing; memory is read after each
OK_CODES = {200, 400, 408, 413, 415, 503}  # 503: the queue is full
Sent = tuple[bytes, dict[str, str]]  # a body and its headers


class Server:
    """A running server: its process, its port, and what it costs."""

    def __init__(self, process: subprocess.Popen, port: int, scratch: Path) -> None:
        self.process, self.port, self.scratch = process, port, scratch

    def memory(self, line: str = "VmRSS") -> float:
        """Returns MiB: VmRSS now, VmHWM at most so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(re.search(rf"{line}:\s+(\d+)", status)[1]) / 1024, 1)

    def open_files(self) -> int:
        """Returns how many files and connections it holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Returns (status, answer); status 0 where the connection was closed without one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def raw(self, data: bytes) -> int:
        """Sends bytes that need not be HTTP; returns the status of the answer, 0 for none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                head = connection.recv(1000)
            except OSError:
                return 0
        found = re.match(rb"HTTP/1.1 (\d+)", head)
        return int(found[1]) if found else 0


@contextmanager
def serving(model: str | None, root: Path = ROOT, env: Mapping[str, str] = os.environ) -> Iterator[Server]:
    """Starts `wastejax serve` of a checkout with an empty folder for temporary files."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "wastejax.main", "serve", "--port=0"]
        command += [f"--model={model}"] if model else []
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=root, env={**env, "TMPDIR": scratch}
        )
        try:
            assert process.stdout is not None
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            yield Server(process, port, Path(scratch))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def encoded(kind: str, size: tuple[int, int] = (256, 256), seed: int = 0) -> bytes:
    """Returns a drawn image as a file."""
    data = io.BytesIO()
    image = synthetic.draw(synthetic.CLASSES[seed % len(synthetic.CLASSES)], seed, "real_world")
    image.resize(size, Image.Resampling.BICUBIC).save(data, kind)
    return data.getvalue()


def png(width: int, height: int, content: bytes) -> bytes:
    """Returns a PNG whose header says what it likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def form(name: bytes, data: bytes, count: int = 1, boundary: bytes = b"edge") -> bytes:
    part = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n' % (
        boundary,
        name,
        data,
    )
    return part * count + b"--" + boundary + b"--\r\n"


def largest() -> bytes:
    """Returns a file of a few kilobytes with nearly as many pixels as are allowed."""
    data = io.BytesIO()
    Image.new("RGB", (7000, 7000), (120, 90, 60)).save(data, "PNG")
    return data.getvalue()


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}
NAMES = [
    b"../../../etc/passwd",
    b"/etc/shadow",
    b"C:\\windows\\win.ini",
    b"a\x00.png",
    b"\xff\xfe",
    b"x" * 5000,
]
NAMES += [
    b"%2e%2e/%2e%2e/x",
    b"<script>alert(1)</script>",
    b'"; rm -rf /',
    b"con",
    b"http://localhost/x.png",
    b"",
]


def attacks(samples: list[bytes]) -> dict[str, Callable[[random.Random], Sent]]:
    """Returns the kinds of broken uploads; each makes one from a random generator."""
    bomb = png(20_000, 20_000, zlib.compress(bytes(60_001 * 500), 9))
    allowed = largest()

    def truncated(r: random.Random) -> Sent:
        data = r.choice(samples)
        return data[: r.randrange(len(data))], {}

    def flipped(r: random.Random) -> Sent:
        data = bytearray(r.choice(samples))
        for _ in range(r.choice((1, 3, 30))):
            data[r.randrange(min(len(data), r.choice((64, 1000, len(data)))))] = r.randrange(256)
        return bytes(data), {}

    def noise(r: random.Random) -> Sent:
        magic = r.choice(
            (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF", b"GIF89a", b"II*\0", b"BM")
        )
        return magic + r.randbytes(r.choice((0, 1, 10, 1000, 20_000))), {}

    def spliced(r: random.Random) -> Sent:
        one, two = r.choice(samples), r.choice(samples)
        return one[: r.randrange(len(one))] + two[r.randrange(len(two)) :], {}

    def huge_header(r: random.Random) -> Sent:
        w, h = r.choice(((2**31 - 1, 2**31 - 1), (60_000, 60_000), (0, 0), (1, 2**31 - 1), (9000, 9000)))
        return r.choice((png(w, h, b"x"), b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\0\0" * 9)), {}

    def bombs(r: random.Random) -> Sent:
        return (allowed if r.random() < 0.1 else bomb), {}

    def too_long(r: random.Random) -> Sent:
        return bytes(17 * 2**20), {}

    def wrong_type(r: random.Random) -> Sent:
        kinds = ("multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=edge")
        kinds += (
            "application/json",
            "text/html; charset=nonsense",
            "multipart/form-data; boundary=edge; charset=hex",
        )
        kinds += ("multipart/form-data; boundary=" + "b" * 500, "image/png\x7f", "x" * 1000)
        return r.choice(samples), {"Content-Type": r.choice(kinds)}

    def names(r: random.Random) -> Sent:
        return form(r.choice(NAMES), r.choice((r.choice(samples), b"", b"text"))), FORM

    def broken_form(r: random.Random) -> Sent:
        body = bytearray(form(b"a.png", r.choice(samples), r.choice((1, 2, 30))))
        for _ in range(r.choice((1, 5, 20))):
            body[r.randrange(min(len(body), r.choice((80, len(body)))))] = r.choice(b'\r\n-:;"\0e')
        return bytes(body[: r.randrange(1, len(body))] if r.random() < 0.5 else body), FORM

    def many_headers(r: random.Random) -> Sent:
        return b"--edge\r\n" + b"X-A: b\r\n" * 5000 + b"\r\nx\r\n--edge--\r\n", FORM

    def odd_headers(r: random.Random) -> Sent:
        return r.choice(samples), {"X-Long": "y" * r.choice((1000, 40_000, 200_000))}

    made = (truncated, flipped, noise, spliced, huge_header, bombs, too_long, wrong_type, names)
    return {make.__name__: make for make in (*made, broken_form, many_headers, odd_headers)}


def raw_requests(sample: bytes) -> list[bytes]:
    """Returns what is hardly HTTP."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    return [
        b"",
        b"\0" * 100,
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00%ff%2e%2e%2f HTTP/1.1\r\nHost: x\r\n\r\n",
        b"A" * 200_000,
        head + b"Content-Length: -5\r\n\r\nabc",
        head + b"Content-Length: 99999999999999999999\r\n\r\nabc",
        head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        head + b"Content-Length: 50000\r\n\r\n" + sample[:100],
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\nabc",
        head + b"Transfer-Encoding: gzip\r\n\r\nabc",
        head + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 50),
    ]


def fuzz(server: Server, requests: int) -> dict[str, Any]:
    """Sends broken uploads of every kind, and says what came back and what it cost."""
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
    samples = [encoded(kind, seed=i) for i, kind in enumerate(kinds)]
    makers = attacks(samples)
    rare = ("bombs", "too_long")  # the costly ones: each a hundredth
    weights = [0.1 if name in rare else 1.0 for name in makers]
    good = encoded("JPEG", seed=3)
    temporary = set(server.scratch.rglob("*"))
    for _ in range(2):  # what the largest images need, in every decoding thread, is no growth
        threads = [threading.Thread(target=server.post, args=(largest(), {})) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    before = server.post(good, {})
    found: Counter[str] = Counter()
    unexpected: list[str] = []
    memory, files = [server.memory()], [server.open_files()]
    r = random.Random(17)
    for _ in range(ROUNDS):
        for name in r.choices(list(makers), weights, k=requests // ROUNDS):
            body, headers = makers[name](r)
            try:
                status, answer = server.post(body, headers)
            except ValueError:  # the client itself refuses to send such a header
                continue
            found[f"{name} {status}"] += 1
            # No answer is due where the head is too long to be read, or where a refused body goes on.
            if status not in OK_CODES and not (status == 0 and name in ("odd_headers", "too_long")):
                unexpected.append(f"{name}: {status} {answer[:100]!r}")
        for data in raw_requests(samples[0]):
            found[f"raw {server.raw(data)}"] += 1
        time.sleep(0.5)
        memory.append(server.memory())
        files.append(server.open_files())
    after = server.post(good, {})
    return {
        "requests": sum(found.values()),
        "statuses": dict(sorted(found.items())),
        "unexpected": unexpected[:20],
        "same_answer_afterwards": before == after and before[0] == 200,
        "memory_mib": memory,
        "most_memory_mib": server.memory("VmHWM"),
        "open_files": files,
        "new_temporary_files": sorted(path.name for path in set(server.scratch.rglob("*")) - temporary),
    }


def load(server: Server, seconds: float) -> list[dict[str, Any]]:
    """Asks from 1, 2, … threads at once, each as soon as it is answered."""
    images = [encoded("JPEG", (1280, 960), seed) for seed in range(16)]
    rows = []
    for clients in CONCURRENCY:
        latencies: list[float] = []
        codes: Counter[int] = Counter()
        end = time.perf_counter() + seconds

        def client(first: int, end: float = end, latencies: list = latencies, codes: Counter = codes) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            i = first
            while time.perf_counter() < end:
                start = time.perf_counter()
                connection.request("POST", "/predict", images[i % len(images)])
                answer = connection.getresponse()
                answer.read()
                latencies.append(time.perf_counter() - start)
                codes[answer.status] += 1
                i += 1
            connection.close()

        threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ms = 1000 * np.array(latencies)
        rows.append(
            {
                "clients": clients,
                "requests": len(ms),
                "statuses": {str(code): count for code, count in codes.items()},
                "per_second": round(len(ms) / (time.perf_counter() - start), 1),
                "ms_p50": round(float(np.quantile(ms, 0.5)), 1),
                "ms_p99": round(float(np.quantile(ms, 0.99)), 1),
                "memory_mib": server.memory(),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "model", nargs="?", help="run, bundle or exported file (default: the one that comes along)"
    )
    parser.add_argument("--requests", type=int, default=5000, help="broken ones")
    parser.add_argument("--seconds", type=float, default=8, help="of load for each number of clients")
    args = parser.parse_args()
    with serving(args.model) as server:
        loaded = load(server, args.seconds)
        fuzzed = fuzz(server, args.requests)
    assert server.process.returncode == 0, "it did not end well"
    model = Path(args.model).name if args.model else "the one that comes along"
    result = {
        **provenance(f"python experiments/serving.py {Path(args.model).name if args.model else ''}".strip()),
        "hardware": machine.hardware() + ", shared by server and clients",
        "model": model,
        "load": loaded,
        "fuzz": fuzzed,
    }
    write_json(RESULTS / "serving.json", result)
    print(json.dumps(fuzzed, indent=1))


if __name__ == "__main__":
    main()
