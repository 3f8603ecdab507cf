"""An emulated AWS on loopback: EC2, IAM, CloudFormation and S3 over real HTTP, without an account."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator

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
