"""One file interface for local disk, NFS, S3 and GCS: whole files, written atomically."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

# Readers skip neither `x.tmp` nor `_x` nor `.x` reliably, so temporaries live outside every table's folder.
TEMPORARY_FOLDER = ".tmp"


class Store:
    """The files below one root, a local path or a URI that `pyarrow.fs` knows (`s3://`, `gs://`, `file://`). Raises ValueError for another.

    Where an object store is and who asks are in the URI (`s3://key:secret@bucket/path?region=..&scheme=http&endpoint_override=host:port`)
    or where pyarrow looks for them, as AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = self.address = os.fspath(root)  # opens the same store elsewhere
        if "://" in text:
            try:
                self.filesystem, self.base = pafs.FileSystem.from_uri(text)
            except pa.ArrowException as error:
                raise ValueError(f"{text}: {error}; allowed: a path, file:///..., s3://bucket/..., gs://bucket/...") from error
            if not self.base:
                raise ValueError(f"{text}: names no bucket; allowed: {text.rstrip('/')}//bucket/...")
            self.root = (
                f"{text.partition('://')[0]}://{self.base.rstrip('/')}"  # without the key and the options: it is printed and published
            )
        else:
            self.filesystem, self.base = pafs.LocalFileSystem(), str(Path(text).absolute())
            self.address = self.root = self.base
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, name: str) -> str:
        """The path of a file in this store, as `self.filesystem` understands it."""
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
        if not self.is_local:  # an object appears when its upload completes
            with self.filesystem.open_output_stream(final) as sink:
                fill(sink)
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
