"""One file interface for local disk, NFS, S3 and GCS: whole files, written atomically."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

# Readers skip neither `x.tmp` nor `_x` nor `.x` reliably, so temporaries live outside every table's folder.
TEMPORARY_FOLDER = ".tmp"
_AT_ONCE = 32  # requests to an object store under way: nearly all of their time is waiting
_ATTEMPTS = 13  # with pauses that double from 50 ms: some three minutes of an unreachable store are waited out
_CONNECT_S, _REQUEST_S = 10.0, 60.0
_S3_OPTIONS = ("region", "endpoint_override", "scheme", "allow_bucket_creation")

T = TypeVar("T")
R = TypeVar("R")


class Store:
    """The files below one root, a local path or a URI that `pyarrow.fs` knows (`s3://`, `gs://`, `file://`).

    Raises ValueError for a URI that is wrong, or that holds credentials: these come from the environment (AWS_ACCESS_KEY_ID, a profile,
    the role of the machine), and the URI is kept with the results. AWS_ENDPOINT_URL, or `?endpoint_override=` behind the path, leads to
    a store that is not Amazon's.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = self.address = os.fspath(root)  # opens the same store elsewhere
        self.base: str
        if "://" in text:
            try:
                self.filesystem, self.base = _s3(text) if text.startswith("s3://") else pafs.FileSystem.from_uri(text)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{text}: {error}; allowed: a path, file:///..., s3://bucket/..., gs://bucket/...") from error
            if not self.base:
                raise ValueError(f"{text}: names no bucket; allowed: {text.rstrip('/')}//bucket/...")
            self.root = f"{text.partition('://')[0]}://{self.base.rstrip('/')}"  # without the options: it is printed and published
        else:
            self.filesystem, self.base = pafs.LocalFileSystem(), str(Path(text).absolute())
            self.address = self.root = self.base
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, name: str) -> str:
        """The path of a file in this store, as `self.filesystem` understands it.

        Raises ValueError for a name that leads out of it: parts of names may come from a table that somebody else wrote.
        """
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError(f"{name!r} leads out of {self.root}")
        return f"{self.base}/{name}"

    def exists(self, name: str) -> bool:
        return self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted base names of the files in a folder; empty if there is no such folder."""
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.path(folder), allow_not_found=True))
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.File and i.base_name.endswith(suffix))

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        self.write_with(name, lambda sink: sink.write(data))

    def write_with(self, name: str, fill: Callable[[Any], object]) -> None:
        """Let `fill` write a file that appears whole or not at all, replacing any older one of that name."""
        final = self.path(name)
        if not self.is_local:  # an object appears when its upload completes, so that begins when all is there
            buffer = pa.BufferOutputStream()
            fill(buffer)
            with self.filesystem.open_output_stream(final) as sink:
                sink.write(buffer.getvalue())
            return
        temporary = self.path(f"{TEMPORARY_FOLDER}/{uuid.uuid4().hex}")
        for path in (temporary, final):
            self.filesystem.create_dir(os.path.dirname(path), recursive=True)
        try:
            with self.filesystem.open_output_stream(temporary) as sink:
                fill(sink)
            self.filesystem.move(temporary, final)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`function` of each item, in their order: many at a time where that reads from an object store."""
        if self.is_local:
            return [function(item) for item in items]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(function, items))

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        if self.exists(name):
            self.filesystem.delete_file(self.path(name))

    def delete_temporaries(self, older_than_s: float = 3600.0) -> None:
        """Remove what killed writers left. What is younger may belong to a writer at work, and is left."""
        if not self.is_local:
            return
        selector = pafs.FileSelector(self.path(TEMPORARY_FOLDER), allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.mtime is not None and time.time() - info.mtime.timestamp() > older_than_s:
                self.filesystem.delete_file(info.path)

    def check_writable(self) -> None:
        """Write and remove a small file. Raises OSError (pyarrow's `ArrowException` included) where that fails."""
        try:
            self.write(".writable", b"")
            self.delete(".writable")
        except pa.ArrowException as error:
            raise OSError(str(error)) from error


def _s3(uri: str) -> tuple[pafs.S3FileSystem, str]:
    """The file system and the path of `s3://bucket/path?option=value`."""
    parts = urlsplit(uri)
    if not parts.netloc:
        raise ValueError(f"{uri}: names no bucket; allowed: s3://bucket/...")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if "@" in parts.netloc:
        raise ValueError("credentials are refused in a URI, which is kept with the results; they come from the environment")
    if unknown := sorted(set(options) - set(_S3_OPTIONS)):
        raise ValueError(f"unknown option {unknown[0]!r}; allowed: {', '.join(_S3_OPTIONS)}")
    if "allow_bucket_creation" in options:
        options["allow_bucket_creation"] = options["allow_bucket_creation"] in ("1", "true")
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        options.setdefault("endpoint_override", endpoint)
    if not ({"region", "endpoint_override"} & set(options) or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        options["region"] = pafs.resolve_s3_region(parts.netloc)
    pa.set_io_thread_count(max(_AT_ONCE, pa.io_thread_count()))
    filesystem = pafs.S3FileSystem(
        **options,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        allow_delayed_open=True,  # a small file is one request instead of three
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
    return filesystem, f"{parts.netloc}{parts.path}".rstrip("/")
