"""What a client is told that asks for what cannot be, and which other sites may ask."""

import json
import socket
import time
import urllib.error
import urllib.request

import pytest
from test_serve import post, server, stand_in

from wastejax.deployment.server.app import Limits
from wastejax.deployment.server.requests import check_origin
from wastejax.errors import UserError


@pytest.fixture(scope="module")
def port():
    with server(stand_in(), Limits(body=200_000)) as port:
        yield port


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/predict", 413, "the request is too long"),
        ("/predict?top=0", 400, "top: must be"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_who_sends_much_that_is_refused_is_told_why(port, path, status, told):
    """By urllib, which looks for an answer only when it has sent everything."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", bytes(20_000_000), timeout=30)
    assert refused.value.code == status and json.loads(refused.value.read())["error"].startswith(told)
    refused.value.close()


@pytest.mark.parametrize(("head", "longest"), [("Expect: 100-continue\r\n", 1.0), ("", 3.0)])
def test_a_body_that_does_not_come_is_not_waited_for(port, monkeypatch, head, longest):
    """Who waits to be told to send is answered at once, anybody else after a moment."""
    monkeypatch.setattr("wastejax.deployment.server.requests.MOMENT", 1.5)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        start = time.monotonic()
        client.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n{head}\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 413")
        assert time.monotonic() - start < longest


@pytest.mark.parametrize("value", ["false", "no", "2", "true"])
def test_a_heat_map_is_asked_for_by_0_or_1(port, value):
    status, answer = post(port, b"", f"/predict?heatmap={value}")
    assert (status, answer["error"]) == (400, "heatmap: must be 0 or 1")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://Shop.example:443/", "https://shop.example"),
        ("http://shop.example:80", "http://shop.example"),
        ("http://shop.example:443", "http://shop.example:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[2001:DB8:0:0::1]", "https://[2001:db8::1]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://재활용.kr", "https://xn--oo5bnsq66a.kr"),
    ],
)
def test_an_origin_is_taken_as_browsers_send_it(given, sent):
    assert check_origin(given) == sent == check_origin(sent)


@pytest.mark.parametrize(
    "given",
    ["https://[::1", "https://x#y", "https://[::g]", "https://a..ü", "https://x:99999", "https://straße.de"],
)
def test_an_origin_that_no_browser_sends_is_refused(given):
    with pytest.raises(UserError, match=r"^--allow-origin=.*: give "):
        check_origin(given)
