"""The server: predict's answers over HTTP, and one line of JSON for whatever else is sent to it."""

import asyncio
import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from small_models import CLASSES, draw_images, write_bundle

from wastejax import __version__
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.answers import answers
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.heatmaps import heat_map
from wastejax.deployment.predictor import Predictor
from wastejax.deployment.server.app import Limits, create_app
from wastejax.deployment.server.batching import Batches
from wastejax.deployment.server.collecting import Collector
from wastejax.deployment.server.connection import Connection
from wastejax.deployment.server.requests import check_origin
from wastejax.errors import UserError

SIZE = 32


def brightness(images: np.ndarray, pause: float = 0.0) -> np.ndarray:
    """Stands in for a network: dark images are of the first class, bright ones of the last."""
    time.sleep(pause)
    mean = images.mean(axis=(1, 2, 3), keepdims=False)[:, None] / 255
    scores = np.exp(-50 * (mean - np.linspace(0, 1, len(CLASSES))) ** 2)
    return (scores / scores.sum(1, keepdims=True)).astype(np.float32)


def stand_in(pause: float = 0.0) -> Predictor:
    def compute(images: np.ndarray) -> np.ndarray:
        return brightness(images, pause)

    return Predictor(
        Path("none"), "numpy", CLASSES, Preprocessing(SIZE), load_taxonomy().only(CLASSES), compute
    )


@contextmanager
def server(
    predictor: Predictor,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    origins: tuple[str, ...] = (),
    reject_below: float = 0.5,
    collector: Collector | None = None,
):
    """A server in a thread of this process; gives its port."""
    opened = socket.create_server(("127.0.0.1", 0))
    ready = threading.Event()
    app = create_app(predictor, reject_below, limits, ready.set, origins, collector)
    running = uvicorn.Server(uvicorn.Config(app, http=Connection, ws="none", log_level="critical"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        assert ready.wait(60)
        yield opened.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def port():
    limits = Limits(body=200_000, pixels=100_000, files=4)
    with server(stand_in(), limits) as port:
        yield port


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str):
    """Returns (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def post(port: int, body: bytes, path: str = "/predict", **headers: str) -> tuple[int, dict]:
    status, _, answer = ask(port, "POST", path, body, **headers)
    return status, json.loads(answer)


def form(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """A multipart form of files, and its content type."""
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n'
        % (n.encode(), data)
        for n, data in files
    ]
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def image(gray: int, side: int = 40, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side, side), (gray,) * 3).save(data, kind)
    return data.getvalue()


def test_answers_are_predicts_answers(tmp_path):
    folder = draw_images(tmp_path / "images")
    predictor = load_predictor(write_bundle(tmp_path / "bundle", temperature=2.0))
    names = [str(path) for path in sorted(folder.rglob("*.*"))]
    expected = [answer.to_dict() for answer in answers(predictor, names, top=5)]
    with server(predictor, Limits(batch=2)) as port:
        body, kind = form(*((name, Path(name).read_bytes()) for name in names))
        status, together = post(port, body, "/predict?top=5", content_type=kind)
        drawn = post(port, Path(names[0]).read_bytes(), "/predict?heatmap=1")[1]["answers"][0]
        single = [post(port, Path(name).read_bytes(), "/predict?top=5") for name in names]
    assert status == 200 and [row["file"] for row in together["answers"]] == names
    kind, _, encoded = drawn["heatmap"].partition(",")
    wanted = heat_map(predictor, Image.open(names[0]).convert("RGB"), drawn["top"][0]["class"])
    assert kind == "data:image/jpeg;base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), int)
    assert np.abs(found - np.asarray(wanted)).mean() < 3
    assert len({row["top"][0]["class"] for row in expected}) > 1
    for row, found, (code, alone) in zip(expected, together["answers"], single, strict=True):
        assert code == 200 and alone["answers"][0]["file"] == ""
        for other in (found, alone["answers"][0]):
            assert other["rejected"] == row["rejected"]
            assert [g["class"] for g in other["top"]] == [g["class"] for g in row["top"]]
            assert [g["bin"] for g in other["top"]] == [g["bin"] for g in row["top"]]
            # Programs of one, two and four images round apart. Moving every variable of this network by a unit in
            # the last place moves a probability by up to 1.7e-6, and each of two is given to six digits.
            np.testing.assert_allclose(
                [g["probability"] for g in other["top"]], [g["probability"] for g in row["top"]], atol=1e-5
            )


def test_one_bad_image_among_good_ones(port):
    body, kind = form(("a.png", image(0)), ("종이.txt", b"no image"), ("../../etc/passwd", image(255)))
    status, found = post(port, body, content_type=kind)
    assert status == 200
    first, second, third = found["answers"]
    assert first["top"][0]["class"] == CLASSES[0] and third["top"][0]["class"] == CLASSES[-1]
    assert second == {"file": "종이.txt", "error": "not an image"} and third["file"] == "../../etc/passwd"


BOMB = image(0, side=400)  # a small file of more pixels than are allowed
REFUSALS = {
    "empty": (b"", {}, 400, "empty file"),
    "text": (b"hello", {"content_type": "image/png"}, 415, "not an image"),
    "cut": (image(9, kind="JPEG")[:-100], {}, 400, "truncated"),
    "long": (b"x" * 200_001, {}, 413, "too long: at most 0.19"),
    "pixels": (BOMB, {}, 413, "400 x 400 pixels"),
    "no boundary": (b"x", {"content_type": "multipart/form-data"}, 400, "boundary"),
    "no form": (b"x", {"content_type": "multipart/form-data; boundary=edge"}, 400, "form cannot be read"),
    "no files": (
        b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--edge--\r\n',
        {"content_type": "multipart/form-data; boundary=edge"},
        400,
        "no image",
    ),
    "odd charset": (
        b"x",
        {"content_type": "multipart/form-data; boundary=edge; charset=base64"},
        400,
        "form cannot be read",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(port, name):
    body, headers, status, reason = REFUSALS[name]
    found, answer = post(port, body, **headers)
    assert found == status and set(answer) == {"error"} and reason in answer["error"]
    assert "\n" not in answer["error"]


def test_too_many_files(port):
    body, kind = form(*[("a.png", image(0))] * 5)
    status, answer = post(port, body, content_type=kind)
    assert status == 400 and "Too many files" in answer["error"]


def test_a_long_body_without_a_length(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/predict", (b"x" * 50_000 for _ in range(5)), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413 and b"too long" in answer.read()
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("GET", "/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/bundle.json", 404),
        ("POST", "/predict?top=0", 400),
        ("POST", "/predict?top=%D9%A3", 400),
        ("POST", "/predict?heatmap=1", 400),
        ("DELETE", "/", 405),
    ],
)
def test_wrong_addresses(port, method, path, status):
    found, headers, body = ask(port, method, path)
    assert found == status and headers["content-type"] == "application/json" and json.loads(body)["error"]


def test_what_else_it_answers(port):
    status, _, body = ask(port, "GET", "/labels")
    labels = json.loads(body)
    assert status == 200 and [entry["name"] for entry in labels["classes"]] == list(CLASSES)
    glass = labels["classes"][1]
    korea = load_taxonomy()
    assert glass["bin"] == "glass" and glass["ko"] == korea.classes["glass"].name("ko")
    assert labels["bins"]["glass"]["advice_ko"] == korea.bins["glass"].advice("ko")
    assert labels["classes"][-1]["bin"] == "" and labels["classes"][-1]["en"] == "종이"
    assert labels["preprocessing"]["image_size"] == SIZE and labels["reject_below"] == 0.5
    assert json.loads(ask(port, "GET", "/healthz")[2]) == {"status": "ok", "waiting": 0}
    page = ask(port, "GET", "/")
    assert page[0] == 200 and page[1]["content-type"].startswith("text/html") and b"<html" in page[2]
    described = json.loads(ask(port, "GET", "/openapi.json")[2])
    assert described["openapi"].startswith("3.1") and set(described["paths"]) == {
        "/predict",
        "/labels",
        "/healthz",
        "/metrics",
    }
    assert described["info"]["version"] == __version__
    predict = described["paths"]["/predict"]["post"]
    form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["maxItems"] == 4
    too_large = "more than 200000 bytes, or an image of more than 100000 pixels"
    assert predict["responses"]["413"]["description"] == too_large


def sample(port: int, name: str) -> float:
    """The value of one line of /metrics."""
    _, headers, body = ask(port, "GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in body.decode().splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_metrics_count(port):
    counts = {
        'wastejax_requests_total{path="/predict",status="200"}': 1,
        'wastejax_requests_total{path="/predict",status="415"}': 1,
        'wastejax_requests_total{path="other",status="404"}': 1,
        'wastejax_images_total{outcome="answered"}': 2,
        'wastejax_images_total{outcome="unreadable"}': 1,
        'wastejax_predict_seconds_bucket{le="+Inf"}': 1,
        "wastejax_predict_seconds_count": 1,
    }
    before = {name: sample(port, name) for name in counts}
    body, kind = form(("a", image(0)), ("b", image(255)))
    post(port, body, content_type=kind)
    post(port, b"text")
    ask(port, "GET", "/x%22%7D%0Awastejax%201")  # no line of its own in the metrics
    assert {name: sample(port, name) - before[name] for name in counts} == counts
    for line in ask(port, "GET", "/metrics")[2].decode().splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) .+|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [\d.]+', line)


def test_a_full_queue_is_refused_and_emptied():
    with server(stand_in(pause=0.3), Limits(waiting=3, batch=1)) as port:
        with ThreadPoolExecutor(8) as clients:
            found = list(clients.map(lambda i: ask(port, "POST", "/predict", image(i)), range(8)))
        codes = [status for status, _, _ in found]
        assert codes.count(200) >= 3 and codes.count(503) >= 3 and set(codes) == {200, 503}
        for status, headers, body in found:
            if status == 503:
                assert headers["retry-after"] == "1" and "busy" in json.loads(body)["error"]
        assert post(port, image(0))[0] == 200
        assert json.loads(ask(port, "GET", "/healthz")[2])["waiting"] == 0


def test_time_is_limited():
    with server(stand_in(pause=0.6), Limits(seconds=0.3)) as port:
        status, answer = post(port, image(0))
        assert status == 503 and "no answer within 0.3 s" in answer["error"]
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
            assert b"408" in slow.recv(4096).split(b"\r\n")[0]
        assert json.loads(ask(port, "GET", "/healthz")[2])["waiting"] == 0


def test_a_connection_that_never_asks_is_closed(monkeypatch):
    monkeypatch.setattr("wastejax.deployment.server.connection.PATIENCE", 0.2)
    with server(stand_in()) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as idle:
        idle.sendall(b"GET /healthz HT")
        assert idle.recv(100) == b""
        assert ask(port, "GET", "/healthz")[0] == 200


def test_batches_are_powers_of_two_and_a_failure_ends_with_its_batch():
    sizes: list[int] = []

    def compute(images: np.ndarray) -> np.ndarray:
        if images.max() == 255:
            raise ValueError("no")
        return images.reshape(len(images), -1)[:, :2].astype(np.float32)

    async def scenario() -> list:
        batches = Batches(compute, 4, sizes.append)
        rows = [asyncio.create_task(batches.row(np.full((2, 2, 3), i, np.uint8))) for i in [*range(7), 255]]
        await asyncio.sleep(0)
        rows[5].cancel()  # nobody waits for it any more
        worker = asyncio.create_task(batches.work())
        found = await asyncio.gather(*rows, return_exceptions=True)
        assert (await batches.row(np.ones((2, 2, 3), np.uint8))).tolist() == [1, 1]
        worker.cancel()
        return found

    found = asyncio.run(scenario())
    assert [row.tolist() for row in found[:5]] == [[i, i] for i in range(5)]
    assert isinstance(found[5], asyncio.CancelledError) and found[6].tolist() == [6, 6]
    assert "the network failed: no" in str(found[7])
    assert sizes == [4, 2, 1, 1]


SLOW_SERVER = """
import sys
from test_serve import stand_in
from wastejax import main
from wastejax.cli import serve
serve.load_engine = lambda *_: stand_in(pause=0.4)
sys.argv = ["wastejax", "serve", "--port=0", "--max-batch=1"]
main.main()
"""


def test_sigterm_answers_what_was_taken():
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "WASTEJAX_HUGEPAGES": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_SERVER], stdout=subprocess.PIPE, env=env, text=True
    )
    try:
        line = process.stdout.readline()
        port = int(re.search(r"127\.0\.0\.1:(\d+)/", line)[1])
        with ThreadPoolExecutor(4) as clients:
            waiting = [clients.submit(post, port, image(60 * i)) for i in range(4)]
            deadline = time.monotonic() + 10
            while json.loads(ask(port, "GET", "/healthz")[2])["waiting"] < 4:
                assert time.monotonic() < deadline
            process.send_signal(signal.SIGTERM)
            found = [future.result() for future in waiting]
        assert [status for status, _ in found] == [200] * 4
        assert found[0][1]["answers"][0]["top"][0]["class"] == CLASSES[0]
        assert process.wait(10) == 0
        with pytest.raises(ConnectionRefusedError):
            ask(port, "GET", "/healthz")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--max-body=0", "--max-body: must be > 0"),
        ("--max-body=1e305", "--max-body: is in MiB, and at most 1,048,576"),
        ("--timeout=-1", "--timeout: must be > 0"),
        ("--host=nowhere.invalid", "--host=nowhere.invalid"),
        ("--port=70000", "--port: must be from 0 to 65535, is 70000"),
        ("--allow-origin=shop.example", "--allow-origin=shop.example: give what"),
    ],
)
def test_mistakes_are_one_line(option, hint, monkeypatch):
    from wastejax.cli import serve
    from wastejax.main import parser

    monkeypatch.setattr(serve, "load_engine", lambda *_, **__: stand_in())
    with pytest.raises(UserError, match=hint):
        serve.run(parser("serve").parse_args(["serve", option]), print)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda data: json.dumps({"image": base64.b64encode(data).decode()}).encode(), "JSON"),
        (lambda data: b"\n[1, 2, 3]", "JSON"),
        (base64.b64encode, "base64"),
        (base64.encodebytes, "base64"),
        (lambda data: b'"' + base64.urlsafe_b64encode(data) + b'"', "base64"),
        (lambda data: b"data:image/png;base64," + base64.b64encode(data), "a data URL"),
        (lambda data: b"image=" + base64.b64encode(data), "form fields as text"),
        (lambda data: b"https://example.org/a.jpg", "an address"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_what_is_sent_in_place_of_an_image_is_named_with_what_to_send(port, make, named, kind):
    body = make(image(90, kind=kind))
    sent, content_type = form(("photo.jpg", body))
    for given in (post(port, body), post(port, sent, content_type=content_type)):
        status, answer = given
        assert status == 415 and answer["error"].startswith(f"{named} ")
        assert "curl --data-binary @photo.jpg" in answer["error"] and "\n" not in answer["error"]


@pytest.mark.parametrize(("charset", "name"), [("utf-7", "+2AA-.jpg"), ("unicode_escape", r"\ud800.jpg")])
def test_names_that_no_answer_can_repeat_keep_none_back(port, charset, name):
    body, kind = form((name, image(200)))
    status, answer = post(port, body, content_type=f"{kind}; charset={charset}")
    assert status == 200 and answer["answers"][0]["file"] == "?.jpg"


def test_a_form_without_a_file_is_told_what_to_send(port):
    field = b'--edge\r\nContent-Disposition: form-data; name="image"\r\n\r\nphoto.jpg\r\n--edge--\r\n'
    status, answer = post(port, field, content_type="multipart/form-data; boundary=edge")
    assert status == 400 and "curl -F file=@photo.jpg" in answer["error"]


def test_an_image_is_an_image_whatever_its_type_is_called(port):
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", ""):
        assert post(port, image(90), content_type=kind)[0] == 200


def test_pages_of_another_site_may_ask_where_it_is_named(port):
    preflight = {"origin": "https://shop.example", "access_control_request_method": "POST"}
    assert ask(port, "OPTIONS", "/predict", **preflight)[0] == 405
    assert "access-control-allow-origin" not in ask(port, "GET", "/labels", origin="https://shop.example")[1]
    with server(stand_in(), origins=(check_origin("https://shop.example/"),)) as open_port:
        status, headers, _ = ask(open_port, "OPTIONS", "/predict", **preflight)
        assert status == 200 and headers["access-control-allow-origin"] == "https://shop.example"
        headers = ask(open_port, "POST", "/predict", image(90), origin="https://shop.example")[1]
        assert headers["access-control-allow-origin"] == "https://shop.example"
        other = ask(open_port, "POST", "/predict", image(90), origin="https://else.example")[1]
        assert "access-control-allow-origin" not in other


@pytest.mark.parametrize(
    "origin", ["example.org", "ftp://a.b", "https://", "https://a.b/c", "http://a:99999"]
)
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(UserError, match="--allow-origin="):
        check_origin(origin)


def test_a_multi_label_model_answers_with_all_classes_and_the_union_of_their_bins():
    """A gray between the first two classes is as bright as either; none is named where nothing is as likely."""
    rules = load_taxonomy()
    both = sorted(CLASSES[:2])
    for threshold, expected in ((0.4, both), (0.6, [])):
        predictor = replace(stand_in(), class_thresholds=(threshold,) * len(CLASSES))
        with server(predictor, reject_below=0) as port:
            status, answers = post(port, image(round(255 / 8)))
            page = json.loads(ask(port, "GET", "/labels.json")[2])
        (answer,) = answers["answers"]
        assert status == 200 and sorted(entry["class"] for entry in answer["classes"]) == expected
        assert answer["bins"] == list(dict.fromkeys(rules.find(e["class"]).bin for e in answer["classes"]))
        assert answer["rejected"] is (not expected)
        assert page["multilabel"] and {entry["named_from"] for entry in page["classes"]} == {threshold}
