import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from panomask import addresses
from panomask.addresses import local_path
from panomask.checkpoint import PathManager
from panomask.errors import InputError

ANSWERS = {
    "/file.pth": ((302,), ("Location", "file:///etc/hostname")),
    "/loop.pth": ((302,), ("Location", "/loop.pth")),
    "/bracket.pth": ((302,), ("Location", "http://[bad")),
    "/length.pth": ((200,), ("Content-Length", "many")),
    "/empty.pth": ((200,), ("Content-Length", "0")),
    "/page.pth": ((200,), ("Content-Type", "text/html; charset=utf-8")),
    "/red.pth": ((500, "a\x1b[31m"),),
}
"""What an odd server answers: status, headers; nothing follows."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Caches of this test alone."""
    monkeypatch.setenv("PANOMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "older"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


@pytest.fixture
def server():
    """A web server: /good holds 3000 bytes, /cut announces more than it sends, all else is not found."""

    class Handler(BaseHTTPRequestHandler):
        requests: list[str] = []  # noqa: RUF012

        def do_GET(self):
            self.requests.append(self.path)
            if self.path in ANSWERS:
                status, *headers = ANSWERS[self.path]
                self.send_response_only(*status)
                for header in headers:
                    self.send_header(*header)
                return self.end_headers()
            if "good" not in self.path and "cut" not in self.path:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", "3000" if "good" in self.path else "4000")
            self.end_headers()
            self.wfile.write(b"x" * 3000)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Handler.requests
    server.shutdown()
    server.server_close()


def test_a_path_stays_as_it_is():
    assert local_path("folder/model.pth") == "folder/model.pth"


@pytest.mark.parametrize(
    "address, file",
    [
        (
            "detectron2://COCO-Detection/x/137/model_final_b.pkl",
            "detectron2/COCO-Detection/x/137/model_final_b.pkl",
        ),
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "detectron2/ImageNetPretrained/MSRA/R-50.pkl"),
        ("catalog://ImageNetPretrained/MSRA/R-50", "detectron/ImageNetPretrained/MSRA/R-50.pkl"),
        ("catalog://ImageNetPretrained/FAIR/R-50-GN", "detectron/ImageNetPretrained/47261647/R-50-GN.pkl"),
    ],
)
def test_names_lead_to_the_files_of_the_server_that_publishes_them(cache, tmp_path, address, file):
    placed = cache / "dl.fbaipublicfiles.com" / file
    placed.parent.mkdir(parents=True)
    placed.write_bytes(b"1")
    assert local_path(address) == str(placed)
    placed.unlink()
    older = tmp_path / "older" / file  # where Detectron2 itself had put it
    older.parent.mkdir(parents=True)
    older.write_bytes(b"1")
    assert local_path(address) == str(older)


def test_a_file_is_downloaded_once(cache, server):
    host, requests = server
    path = local_path(f"{host}/a/good.pth?download=true")
    assert path == str(cache / "127.0.0.1" / "a" / "good.pth")
    assert open(path, "rb").read() == b"x" * 3000
    assert local_path(f"{host}/a/good.pth") == path
    assert requests == ["/a/good.pth?download=true"]


@pytest.mark.parametrize(
    "name, words", [("cut.pth", "broke off"), ("none.pth", "answers 404 .*correct the address")]
)
def test_a_failed_download_leaves_nothing_and_says_where_the_file_goes(cache, server, name, words):
    host, _ = server
    with pytest.raises(InputError, match=words) as caught:
        local_path(f"{host}/{name}")
    target = cache / "127.0.0.1" / name
    assert f"place it at {target}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(target.parent.glob("*.pth"))


@pytest.mark.parametrize(
    "path, words",
    [
        ("file.pth", "answers 302 .*is not allowed"),
        ("loop.pth", "answers 302 .*infinite loop"),
        ("bracket.pth", "broke off .Invalid IPv6"),
        ("length.pth", "broke off after 0 of many bytes"),
        ("empty.pth", "broke off after 0 of 0 bytes"),
        ("page.pth", "sends a web page, not a file"),
        ("red.pth", r"answers 500 'a\\x1b\[31m'"),
    ],
)
def test_odd_servers_are_one_line_and_leave_nothing(cache, server, path, words):
    with pytest.raises(InputError, match=words) as caught:
        local_path(f"{server[0]}/{path}")
    assert str(caught.value).isprintable()
    assert str(cache / "127.0.0.1" / path) in str(caught.value)
    assert not list(cache.rglob("*.pth"))


def test_queries_that_may_mean_another_file(server):
    host, requests = server
    one, two, none = (
        local_path(f"{host}/good.pth{query}") for query in ("?id=1", "?id=2&download=1", "?dl=1")
    )
    assert len({one, two, none}) == 3
    assert all(path.endswith(".pth") for path in (one, two))
    assert none.endswith("/good.pth")
    assert local_path(f"{host}/good.pth?id=1") == one
    assert len(requests) == 3


def test_letters_that_addresses_do_not_have(server):
    host, requests = server
    assert local_path(f"{host}/mein gutes/good ü.pth").endswith("/mein gutes/good ü.pth")
    assert requests == ["/mein%20gutes/good%20%C3%BC.pth"]


def test_without_a_network(cache):
    with pytest.raises(InputError, match=r"cannot be downloaded .*; download it elsewhere and place it at"):
        local_path("http://127.0.0.1:1/model.pth")


def test_checksum_in_the_name(cache, server, monkeypatch):
    host, _ = server
    monkeypatch.setattr(addresses, "_TORCH_PREFIX", host)
    right = hashlib.sha256(b"x" * 3000).hexdigest()[:8]
    assert local_path(f"{host}/good-{right}.pth").endswith(f"{right}.pth")
    with pytest.raises(InputError, match=r"checksum of its name \(01234567\)"):
        local_path(f"{host}/good-01234567.pth")
    assert not (cache / "127.0.0.1" / "good-01234567.pth").exists()


@pytest.mark.parametrize(
    "address, words",
    [
        ("s3://bucket/model.pth", "cannot be fetched; give a path"),
        ("catalog://ImageNetPretrained/MSRA/R-5", "known: catalog://ImageNetPretrained/MSRA/R-50,"),
        ("https://example.org", "an address of a file"),
        ("https://[bad/model.pth", "not an address .Invalid IPv6 URL"),
        ("https://example.org/a\nb.pth", "an address of a file"),
        ("https://example.org/a%00.pth", "an address of a file"),
        ("https://example.org/" + "a" * 300, "cannot be written .File name too long"),
    ],
)
def test_unknown_addresses(address, words):
    with pytest.raises(InputError, match=words):
        local_path(address)


def test_the_path_manager_opens_addresses(server):
    host, _ = server
    with PathManager.open(f"{host}/good.txt") as file:
        assert file.read(3) == "xxx"
    assert PathManager.get_local_path(f"{host}/good.txt") == local_path(f"{host}/good.txt")
    with pytest.raises(InputError, match="only be read"):
        PathManager.open(f"{host}/good.txt", "w")


def test_names_stay_inside_the_cache(cache):
    path = addresses.cached_path("https://example.org/../..%2f../etc//passwd")
    assert path == cache / "example.org" / "etc" / "passwd"


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PANOMASK_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written .*PANOMASK_CACHE"):
        local_path(f"{server[0]}/good.pth")
