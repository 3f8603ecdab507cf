"""torchvision beside any torch, and its data sets from files in every layout that is read."""

import gzip
import hashlib
import importlib.util
import pickle
import subprocess
import sys
import urllib.error
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data import DataError, load
from trainables.recipe import TorchvisionData
from trainables.vision import torchvision

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"


def arrays(num=60, num_classes=3, seed=0, shape=(6, 6, 3)):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (num, *shape), dtype=np.uint8), (np.arange(num) % num_classes).astype(np.uint8)


def write_idx(path, values):
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def write_mnist(folder):
    for stem, num in (("train", 40), ("t10k", 20)):
        images, labels = arrays(num, 10, shape=(28, 28), seed=num)
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)


def mnist(root, name="MNIST", download=False):
    return TorchvisionData(source="torchvision", name=name, root=str(root), download=download)


def test_the_four_published_files_are_read_where_they_lie(tmp_path):
    write_mnist(tmp_path / "mnist")
    data = load(mnist(tmp_path))
    assert [len(part) for part in (data.train, data.val, data.test)] == [31, 9, 20]
    assert data.image_shape == (1, 28, 28)
    assert data.class_names[3] == "3"
    assert (data.test.ids == torch.arange(40, 60)).all()


def test_torchvisions_own_layout_gives_the_same_data(tmp_path):
    write_mnist(tmp_path / "beside" / "mnist")
    write_mnist(tmp_path / "own" / "MNIST" / "raw")
    for path in (tmp_path / "own" / "MNIST" / "raw").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    beside, own = load(mnist(tmp_path / "beside")), load(mnist(tmp_path / "own"))
    assert beside.hash == own.hash
    assert own.class_names[3].startswith("3")


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"\0\0\x08\x01\0\0\0\x09too few"), gzip.compress(b"")],
    ids=["no gzip", "too few", "empty"],
)
def test_a_broken_idx_file_is_refused(tmp_path, content):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz (cannot be read as a gzipped|is no) IDX file"):
        load(mnist(tmp_path))


def test_colour_images_and_split_arguments(tmp_path, monkeypatch):
    """SVHN has channels first, `labels`, and is opened by split. Warnings of torchvision's readers do not leak."""

    class Fake:
        def __init__(self, root, download, split):
            warnings.warn("an old file", DeprecationWarning, stacklevel=1)
            images, self.labels = arrays({"train": 40, "test": 20}[split])
            self.data = images.transpose(0, 3, 1, 2)

    monkeypatch.setattr(torchvision().datasets, "SVHN", Fake)
    data = load(mnist(tmp_path, "SVHN"))
    assert data.image_shape == (3, 6, 6)
    assert [len(part) for part in (data.train, data.val, data.test)] == [31, 9, 20]
    raw = torch.from_numpy(arrays(20)[0].transpose(0, 3, 1, 2).copy()).float()
    assert torch.corrcoef(torch.stack([raw[:, 1].flatten(), data.test.images[:, 1].flatten()]))[0, 1] > 0.999


def test_cifar10_from_its_published_batches(tmp_path, monkeypatch):
    """The real files are read with their hashes checked; here smaller ones take their places, hashes included."""
    kind = torchvision().datasets.CIFAR10
    folder = tmp_path / kind.base_folder
    folder.mkdir()

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    batches = [
        write(f"batch_{number}", {"data": arrays(20, shape=(3072,), seed=number)[0], "labels": [*range(10)] * 2}) for number in range(3)
    ]
    names = [f"class {number}" for number in range(10)]
    meta = write("meta", {"label_names": names})
    monkeypatch.setattr(kind, "train_list", batches[:2])
    monkeypatch.setattr(kind, "test_list", batches[2:])
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    data = load(mnist(tmp_path, "CIFAR10"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [31, 9, 20]
    assert data.image_shape == (3, 32, 32)
    assert data.class_names == names
    (folder / "batch_1").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"CIFAR10: reading it failed"):
        load(mnist(tmp_path, "CIFAR10").model_copy(update={"split_seed": 1}))


@pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="PCAM's files need h5py")
def test_pcam_brings_all_three_splits(tmp_path):
    import h5py

    (tmp_path / "pcam").mkdir()
    for number, split in enumerate(("train", "valid", "test")):
        images, labels = arrays(8 + number, 2, shape=(96, 96, 3), seed=number)
        for key, values in (("x", images), ("y", labels.reshape(-1, 1, 1, 1))):
            with h5py.File(tmp_path / "pcam" / f"camelyonpatch_level_2_split_{split}_{key}.h5", "w") as file:
                file[key] = values
    data = load(mnist(tmp_path, "PCAM"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [8, 9, 10]
    assert data.val.labels.tolist() == [0, 1] * 4 + [0]
    assert data.image_shape == (3, 96, 96)


@pytest.mark.parametrize(("name", "place"), [("CIFAR10", "cifar-10-batches-py"), ("KMNIST", "KMNIST/raw"), ("USPS", "")])
def test_absent_files_are_refused_with_where_they_go(tmp_path, name, place):
    message = rf"data\.name {name}: .*data\.download is false\. Put the files below {tmp_path / place}"
    with pytest.raises(DataError, match=message):
        load(mnist(tmp_path, name))


def test_a_download_that_fails_is_reported(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, root, download, train):
            raise urllib.error.URLError("no route") if download else RuntimeError("Dataset not found")

    monkeypatch.setattr(torchvision().datasets, "CIFAR100", Fake)
    with pytest.raises(DataError, match=r"CIFAR100: downloading it failed \(.*no route.*Put the files below"):
        load(mnist(tmp_path, "CIFAR100", download=True))


def test_unknown_and_unsuitable_sets_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"'fashionmnist' is no data set .* Did you mean FashionMNIST"):
        load(mnist(tmp_path, "fashionmnist"))
    with pytest.raises(DataError, match=r"'VOCDetection' .* images of several sizes or no single label"):
        load(mnist(tmp_path, "VOCDetection"))


@pytest.mark.skipif(not (SHARED / "fashion_mnist").is_dir(), reason=f"fashion_mnist is not in {SHARED}")
def test_fashion_mnist():
    data = load(mnist(SHARED, "FashionMNIST").model_copy(update={"val_fraction": 0.0}))
    assert [len(part) for part in (data.train, data.val, data.test)] == [60000, 0, 10000]
    assert data.train.labels.bincount().tolist() == [6000] * 10
    assert data.class_names[9] == "Ankle boot"
    assert data.val.images.shape == (0, 1, 28, 28)


def test_torchvision_imports_beside_this_torch_and_its_models_run():
    module = torchvision()
    assert module is torchvision()
    with torch.no_grad():
        assert module.models.resnet18(num_classes=3).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("before", ["", "try:\n import torchvision\nexcept RuntimeError:\n pass\n"])
def test_torchvision_imports_without_warnings_also_after_a_failed_import(before):
    command = f"{before}from trainables.vision import torchvision; torchvision().ops.roi_align"
    subprocess.run([sys.executable, "-W", "error", "-c", command], check=True, cwd=REPOSITORY)
