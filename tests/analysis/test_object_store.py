"""Results read from, and analysed in, an object store: a real S3 server on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.fs as pafs
import pytest

import analysis
from analysis.__main__ import main
from analysis.storage import Store

pytest.importorskip("moto", reason="no S3 server: pip install '.[test]' brings moto")
pytest.importorskip("flask_cors", reason="no S3 server: pip install '.[test]' brings flask-cors")

KEY, SECRET, BUCKET = "reader", "notSoSecret", "results"
FAMILIES = 3


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """The address of a server that holds one bucket and nothing else, for as long as the module runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    with log.open("w") as sink:
        words = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(words, stdout=sink, stderr=sink, env=environment)
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def bucket(endpoint) -> pafs.FileSystem:
    filesystem = pafs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, region="us-east-1", scheme="http", endpoint_override=endpoint, allow_bucket_creation=True
    )
    filesystem.create_dir(BUCKET)
    return filesystem


@pytest.fixture
def uploaded(bucket, sweep, request):
    """A sweep as a local store, and the same files in the bucket, below a folder of the test's own."""
    local = sweep(num_families=FAMILIES)
    folder = f"{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}/cells"
    pafs.copy_files(local.base, folder, destination_filesystem=bucket)
    return local, folder


@pytest.fixture(params=["environment", "uri"])  # which says where the store is; who asks is in the environment only
def address(request, uploaded, endpoint, monkeypatch) -> tuple[Store, str]:
    """The local store, and the URI of its copy: with the endpoint from the environment, or in the URI itself."""
    local, folder = uploaded
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    if request.param == "uri":
        return local, f"s3://{folder}?region=us-east-1&scheme=http&endpoint_override={endpoint}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return local, f"s3://{folder}"


def test_load_gives_what_a_folder_gives(address):
    here, there = (analysis.load(root) for root in (address[0].root, address[1]))
    for name in ("trials", "replicas", "recorded"):
        pd.testing.assert_frame_equal(getattr(there, name), getattr(here, name))
    left, right = (results.activations("block1", "before_swap") for results in (here, there))
    np.testing.assert_array_equal(left.X, right.X)
    assert left.trials["trial"].tolist() == right.trials["trial"].tolist()
    assert SECRET not in repr(there)


def test_the_command_writes_what_it_writes_to_a_folder(address, capsys):
    local, uri = address
    options = ["--measures", "cka", "--permutations", "99", "--layers", "block1"]
    assert main([local.root, *options]) == 0
    assert main([uri, *options]) == 0
    out = capsys.readouterr().out
    store, written = Store(uri), local.read("analysis/written.txt").decode().split()
    assert store.read("analysis/written.txt").decode().split() == written
    for name in written:
        assert name == "report.html" or store.read(name) == local.read(name), name
    page = store.read("report.html").decode()
    assert SECRET not in out + page
    assert store.root.startswith("s3://results/")
    assert store.root in page
    assert main(["pairs", uri, "--layer", "block1"]) == 0
    assert analysis.load(uri).pairs("cka", "block1")[0].shape == (4 * FAMILIES, 4 * FAMILIES)


def test_what_is_not_there_is_a_line(address, endpoint, capsys, monkeypatch):
    _, uri = address
    assert main([uri.replace("/cells", "/nothing")]) == 2
    assert "no families in trials/, nothing to analyse" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="no results of a sweep"):
        analysis.load(uri.replace("/cells", "/nothing"))
    assert main([uri.replace(f"{BUCKET}/", "nosuch-bucket/")]) == 2
    told = capsys.readouterr().err
    assert "nosuch-bucket" in told
    assert "Traceback" not in told
    assert SECRET not in told


def test_a_torn_object_is_named(address, bucket, capsys):
    _, uri = address
    with bucket.open_output_stream(f"{Store(uri).base}/trials/t000000000001.parquet") as sink:
        sink.write(b"PAR1")
    assert main([uri]) == 2
    assert "trials/t000000000001.parquet: cannot be read" in capsys.readouterr().err


def test_a_key_in_a_uri_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="credentials are refused") as refused:
        Store(f"s3://{KEY}:{SECRET}@bucket/x?region=us-east-1")
    assert SECRET not in str(refused.value)


def test_the_root_that_is_shown_has_no_options(tmp_path):
    assert Store("s3://bucket/x?region=us-east-1").root == "s3://bucket/x"
    assert Store(tmp_path.as_uri()).root == tmp_path.as_uri()
    assert Path(Store(tmp_path).address) == tmp_path
