"""One file interface for local disk, NFS, S3 and GCS: whole files, written atomically."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

# Readers skip neither `x.tmp` nor `_x` nor `.x` reliably, so temporaries live outside every table's folder.
TEMPORARY_FOLDER = ".tmp"
_WRITING = "writing-"  # how the names of files begin there that are about to be renamed into place
_OLD_S = 3600.0
_AT_ONCE = 32  # requests to an object store under way: nearly all of their time is waiting
_ATTEMPTS = 13  # with pauses that double from 50 ms: some three minutes of refusals are waited out, of silence a quarter of an hour
_CONNECT_S, _REQUEST_S = 10.0, 60.0
_GCS_RETRY_S = 180  # as long for Google's; what its client would wait is 15 minutes
_S3_OPTIONS = ("region", "endpoint_override", "scheme", "allow_bucket_creation", "anonymous")
_GCS_OPTIONS = ("endpoint_override", "scheme", "project_id", "anonymous")
_SWITCHES = ("allow_bucket_creation", "anonymous")
_SWITCH = {"true": True, "1": True, "false": False, "0": False}

# What says nothing of a file: how pyarrow's clients of stores begin, and errors of a disk or a mount. For damage it raises OSError, too.
_NO_ANSWER = ("AWS Error", "google::cloud")
_NO_DAMAGE = ("EACCES", "EPERM", "EIO", "ESTALE", "ETIMEDOUT", "EMFILE", "ENFILE", "ENOMEM", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH")
_REFUSED = {getattr(errno, name) for name in _NO_DAMAGE if hasattr(errno, name)}

T = TypeVar("T")
R = TypeVar("R")


class Unreachable(OSError):
    """A store or a disk does not answer, though asked again and again, or refuses to. Says nothing of what is there."""


@contextlib.contextmanager
def answering(address: str) -> Iterator[None]:
    """Raises Unreachable, with the address, where a store that is asked inside gives no answer."""
    try:
        yield
    except (FileNotFoundError, Unreachable):
        raise
    except OSError as error:
        if error.errno not in _REFUSED and not any(words in str(error) for words in _NO_ANSWER):
            raise
        why = " ".join(str(error).split())
        raise Unreachable(f"{address}: refused or not answered, so nothing is known of it: {why}") from error


class Store:
    """The files below one root, a local path or a URI that `pyarrow.fs` knows (`s3://`, `gs://`, `file://`).

    Raises ValueError for a URI that is wrong, or that holds credentials: these come from the environment (AWS_ACCESS_KEY_ID, a profile,
    the role of the machine; `?anonymous=true` asks for none), and the URI is kept with the results. `?endpoint_override=` behind the path
    leads to another store than Amazon's or Google's, as do AWS_ENDPOINT_URL and STORAGE_EMULATOR_HOST.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = self.address = os.fspath(root)  # opens the same store elsewhere
        self.base: str
        if "://" in text:
            try:
                self.filesystem, self.base = _OPENED.get(text.partition("://")[0], pafs.FileSystem.from_uri)(text)
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
        with answering(f"{self.root}/{name}"):
            return self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted base names of the files in a folder; empty if there is no such folder."""
        with answering(f"{self.root}/{folder}"):
            infos = self.filesystem.get_file_info(pafs.FileSelector(self.path(folder), allow_not_found=True))
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.File and i.base_name.endswith(suffix))

    def read(self, name: str) -> bytes:
        with answering(f"{self.root}/{name}"), self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        self.write_with(name, lambda sink: sink.write(data))

    def write_with(self, name: str, fill: Callable[[Any], object]) -> None:
        """Let `fill` write a file that appears whole or not at all, replacing any older one of that name.

        On a disk it is synced before it is renamed: after a power cut, too, a name that is there holds all of it.
        """
        final = self.path(name)
        if not self.is_local:  # an object appears when its upload completes, so that begins when all is there
            buffer = pa.BufferOutputStream()
            fill(buffer)
            with answering(f"{self.root}/{name}"), self.filesystem.open_output_stream(final) as sink:
                sink.write(buffer.getvalue())
            return
        for path in (self.path(TEMPORARY_FOLDER), os.path.dirname(final)):
            self.filesystem.create_dir(path, recursive=True)
        sink = self._temporary()
        temporary = sink.name
        try:
            with sink:
                fill(sink)
                sink.flush()
                os.fsync(sink.fileno())
                os.replace(temporary, final)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise

    def _temporary(self) -> IO[bytes]:
        """A new file that this process holds the lock on, as `delete_temporaries` may have come between the two."""
        while True:
            sink = open(self.path(f"{TEMPORARY_FOLDER}/{_WRITING}{uuid.uuid4().hex}"), "wb")  # noqa: SIM115
            if _lock(sink) is not False and os.fstat(sink.fileno()).st_nlink:
                return sink
            sink.close()

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`function` of each item, in their order: many at a time where that reads from an object store."""
        if self.is_local:
            return [function(item) for item in items]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(function, items))

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        if self.exists(name):
            with contextlib.suppress(FileNotFoundError), answering(f"{self.root}/{name}"):  # another may delete it, too
                self.filesystem.delete_file(self.path(name))

    def delete_temporaries(self) -> None:
        """Remove what killed writers left: what they held a lock on and nobody does. Where there are no locks, it is left for an hour."""
        if not self.is_local:
            return
        found: list[pafs.FileInfo] = []
        with contextlib.suppress(OSError):  # a folder that is being made
            found = self.filesystem.get_file_info(pafs.FileSelector(self.path(TEMPORARY_FOLDER), allow_not_found=True))
        for info in found:
            if info.type != pafs.FileType.File or info.mtime is None:
                continue
            with contextlib.suppress(OSError), open(info.path, "rb") as file:  # its writer may end meanwhile, or be another user
                is_old = time.time() - info.mtime.timestamp() > _OLD_S
                free = _lock(file)
                if free is not False and (is_old or (free and info.base_name.startswith(_WRITING))):
                    os.remove(info.path)

    def check_writable(self) -> None:
        """Write and remove a small file. Raises OSError (pyarrow's `ArrowException` included) where that fails."""
        try:
            self.write(".writable", b"")
            self.delete(".writable")
        except pa.ArrowException as error:
            raise OSError(str(error)) from error


def _lock(file: IO[bytes]) -> bool | None:
    """Hold the lock on an open file until it is closed or this process dies. False if another does, None where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _parsed(uri: str, allowed: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """`bucket/path` and the options of `scheme://bucket/path?option=value`. Raises ValueError for others than those allowed."""
    parts = urlsplit(uri)
    if not parts.netloc:
        raise ValueError(f"{uri}: names no bucket; allowed: {parts.scheme}://bucket/...")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if "@" in parts.netloc:
        raise ValueError("credentials are refused in a URI, which is kept with the results; they come from the environment")
    if unknown := sorted(set(options) - set(allowed)):
        raise ValueError(f"unknown option {unknown[0]!r}; allowed: {', '.join(allowed)}")
    for name in set(_SWITCHES) & set(options):
        if options[name] not in _SWITCH:
            raise ValueError(f"{name}={options[name]}; allowed: {', '.join(_SWITCH)}")
        options[name] = _SWITCH[options[name]]
    return f"{parts.netloc}{parts.path}".rstrip("/"), options


def _s3(uri: str) -> tuple[pafs.S3FileSystem, str]:
    """The file system and the path of `s3://bucket/path?option=value`."""
    path, options = _parsed(uri, _S3_OPTIONS)
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        options.setdefault("endpoint_override", endpoint)
    if not ({"region", "endpoint_override"} & set(options) or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        options["region"] = pafs.resolve_s3_region(path.partition("/")[0])
    pa.set_io_thread_count(max(_AT_ONCE, pa.io_thread_count()))
    filesystem = pafs.S3FileSystem(
        **options,
        connect_timeout=_CONNECT_S,
        request_timeout=_REQUEST_S,
        allow_delayed_open=True,  # a small file is one request instead of three
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
    return filesystem, path


def _gcs(uri: str) -> tuple[pafs.GcsFileSystem, str]:
    """The same of `gs://bucket/path?option=value`."""
    path, options = _parsed(uri, _GCS_OPTIONS)
    if endpoint := options.pop("endpoint_override", None) or os.environ.get("STORAGE_EMULATOR_HOST"):
        scheme, _, address = endpoint.rpartition("://")  # with or without it, as for S3
        options = {"scheme": scheme or "https", **options, "endpoint_override": address.rstrip("/")}
    pa.set_io_thread_count(max(_AT_ONCE, pa.io_thread_count()))
    return pafs.GcsFileSystem(retry_time_limit=timedelta(seconds=_GCS_RETRY_S), **options), path


_OPENED: dict[str, Callable[[str], tuple[pafs.FileSystem, str]]] = {"s3": _s3, "gs": _gcs, "gcs": _gcs}
