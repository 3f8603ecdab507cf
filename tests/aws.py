"""An emulated AWS on loopback: EC2, IAM, CloudFormation and S3 over real HTTP, without an account."""

from __future__ import annotations

import contextlib
import http.client
import logging
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REGION = "us-west-2"


@contextlib.contextmanager
def emulated() -> Iterator[dict[str, str]]:
    """The environment that leads boto3, pyarrow and Ray there; the server ends with the block, and all that it held."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()  # of an earlier one in this process
    try:
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.stop()


@contextlib.contextmanager
def faulty(
    url: str, seed: int, rate: float, hang_s: float = 1.0, kinds: Sequence[str] = ("refused", "dropped", "hung", "halved")
) -> Iterator[tuple[str, Counter[str]]]:
    """A way to a store that, for a share `rate` of all requests, refuses, hangs, drops the connection or sends half of an answer.

    Two kinds besides: `short` sends half of an object and calls it whole, `closed` lists objects and refuses each.
    Yields its URL and how often it did what.
    """
    target, draw, done, lock = urlsplit(url), random.Random(seed), Counter[str](), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            with lock:
                fault = draw.choice(kinds) if draw.random() < rate else "none"
                if (fault == "short" and self.command != "GET") or (fault in ("short", "closed") and "list-type" in self.path):
                    fault = "none"
                done[fault] += 1
            body = self.body()
            if fault in ("refused", "closed"):
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "dropped":
                self.close_connection = True
                return
            if fault == "hung":
                time.sleep(hang_s)
            there = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("transfer-encoding", "expect")}
            there.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
            reply = there.getresponse()
            answer = reply.read()
            there.close()
            if fault == "short" and reply.status in (200, 206):
                answer = answer[: len(answer) // 2]
            self.send_response(reply.status)
            for key, value in reply.getheaders():
                if key.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                    self.send_header(key, value)
            length = reply.getheader("Content-Length") if self.command == "HEAD" else str(len(answer))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if fault == "halved" and answer:
                self.close_connection = True
                answer = answer[: len(answer) // 2]
            if self.command != "HEAD":
                self.wfile.write(answer)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that went away is what is being tested."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", done
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
