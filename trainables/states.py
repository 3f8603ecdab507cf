"""The store of training states: one safetensors file each, by name, with the full history that it was made with."""

from __future__ import annotations

import io
import json
from typing import Any

import safetensors.torch
from torch import Tensor

from analysis.storage import Store
from trainables.schedule import check_same

FOLDER, SUFFIX = "states", ".safetensors"


class States:
    """Training states below `states/` of a results folder.

    Beside a state lies what the probes recorded on the way to it, so that a family that continues from it writes whole tables.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

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
        self.store.write(self.file(name), safetensors.torch.save(tensors, metadata))

    def usable(self, setting: dict[str, Any], models: list[dict[str, Any]] | None = None) -> dict[str, int]:
        """The states that were made and recorded in this setting: names, and the epochs that they stand at.

        `models` leaves out those of other models (sections `model` of base recipes in full).
        """

        def read(name: str) -> dict[str, Any]:
            with self.store.filesystem.open_input_file(self.store.path(self.file(name))) as file:
                return _metadata(file)

        found, names = {}, self.names()
        for name, metadata in zip(names, self.store.each(read, names), strict=True):
            if metadata["setting"] == setting and (models is None or metadata["history"]["base"]["model"] in models):
                found[name] = int(metadata["history"]["epoch"])
        return found

    def load(self, name: str, history: dict[str, Any], setting: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """The state and the records on the way to it; None if there is none, or one of another setting.

        Raises NameMismatch where the stored history is another than that asked for.
        """
        if not self.store.exists(self.file(name)):
            return None
        data = self.store.read(self.file(name))
        metadata = _metadata(io.BytesIO(data))
        check_same(self.store.path(self.file(name)), metadata["history"], history)
        if metadata["setting"] != setting:
            return None
        tensors = safetensors.torch.load(data)
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "records": {}}
        for key, tensor in tensors.items():
            kind, _, rest = key.partition("/")
            parts[kind][rest] = tensor
        return parts["state"], parts["records"]

    def delete(self, name: str) -> None:
        self.store.delete(self.file(name))


def _metadata(file: Any) -> dict[str, Any]:
    """The header at the start of an open safetensors file: 8 bytes of length, then JSON."""
    size = int.from_bytes(file.read(8), "little")
    return {key: json.loads(text) for key, text in json.loads(file.read(size))["__metadata__"].items()}
