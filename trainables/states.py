"""The store of training states: one safetensors file each, by name, with the full history that it was made with."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from analysis.storage import Store, answering
from trainables.schedule import check_same

FOLDER, SUFFIX = "states", ".safetensors"


class States:
    """Training states below `states/` of a results folder.

    Beside a state lies what the probes recorded on the way to it, so that a family that continues from it writes whole tables.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.damaged: list[str] = []  # states that were found so, and deleted

    @staticmethod
    def file(name: str) -> str:
        return f"{FOLDER}/{name}{SUFFIX}"

    def names(self) -> list[str]:
        return [name.removesuffix(SUFFIX) for name in self.store.names(FOLDER, SUFFIX)]

    def save(
        self, name: str, state: dict[str, Tensor], records: dict[str, Tensor], history: dict[str, Any], setting: dict[str, Any]
    ) -> None:
        """`setting` is what else a state depends on without being named by it: the probes, and what computed it."""
        tensors = {f"state/{key}": value for key, value in state.items()}
        tensors |= {f"records/{key}": value for key, value in records.items()}
        metadata = {"history": json.dumps(history), "setting": json.dumps(setting)}
        metadata["digest"] = json.dumps(_digest(tensors, metadata["history"], metadata["setting"]))
        self.store.write(self.file(name), safetensors.torch.save(tensors, metadata))

    def usable(self, setting: dict[str, Any], models: list[dict[str, Any]] | None = None) -> dict[str, int]:
        """The states that were made and recorded in this setting: names, and the epochs that they stand at.

        `models` leaves out those of other models (sections `model` of base recipes in full).
        """

        def read(name: str) -> dict[str, Any] | None:
            path = self.store.path(self.file(name))
            try:
                with answering(path), self.store.filesystem.open_input_file(path) as file:
                    return _metadata(file)
            except FileNotFoundError:  # a driver at work deletes what it needs no more
                return None

        found, names = {}, self.names()
        for name, metadata in zip(names, self.store.each(read, names), strict=True):
            if metadata is None:
                continue
            if metadata["setting"] == setting and (models is None or metadata["history"]["base"]["model"] in models):
                found[name] = int(metadata["history"]["epoch"])
        return found

    def load(self, name: str, history: dict[str, Any], setting: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """The state and the records on the way to it; None if there is none, or one of another setting. A damaged one is deleted.

        Raises NameMismatch where the stored history is another than that asked for.
        """
        if not self.store.exists(self.file(name)):
            return None
        data = self.store.read(self.file(name))
        tensors, metadata = _opened(data)
        if metadata is None:
            self.delete(name)
            self.damaged.append(name)
            return None
        check_same(self.store.path(self.file(name)), metadata["history"], history)
        if metadata["setting"] != setting:
            return None
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "records": {}}
        for key, tensor in tensors.items():
            kind, _, rest = key.partition("/")
            parts[kind][rest] = tensor
        return parts["state"], parts["records"]

    def delete(self, name: str) -> None:
        self.store.delete(self.file(name))


_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)  # what a file of any bytes may raise


def _metadata(file: Any) -> dict[str, Any] | None:
    """The header at the start of an open safetensors file, 8 bytes of length, then JSON; None where it is no header of ours."""
    try:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, _MAX_HEADER_BYTES)))
        found = {key: json.loads(text) for key, text in header["__metadata__"].items()}
        int(found["history"]["epoch"]), found["history"]["base"]["model"], found["setting"], found["digest"]
    except _DAMAGE:
        return None
    return found


def _opened(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors and the metadata of a file; no metadata where it is not, to the bit, what was saved."""
    metadata = _metadata(io.BytesIO(data))
    if metadata is None:
        return {}, None
    try:
        tensors = safetensors.torch.load(data)
    except _DAMAGE:
        return {}, None
    intact = _digest(tensors, json.dumps(metadata["history"]), json.dumps(metadata["setting"])) == metadata["digest"]
    return tensors, metadata if intact else None


def _digest(tensors: dict[str, Tensor], *texts: str) -> str:
    """A hash over names, types, shapes and bytes of all tensors, and over texts."""
    found = hashlib.blake2b(json.dumps(texts).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
