"""What all data sets share, and .npz archives: found, downloaded, and refused with a message that says what to do."""

import hashlib
import io
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data import DataError, load, npz
from trainables.recipe import CellsData, NpzData

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"


def needs(folder):
    return pytest.mark.skipif(not (SHARED / folder).is_dir(), reason=f"the data set {folder} is not in {SHARED}")


def arrays(num=60, num_classes=3, seed=0, shape=(6, 6, 3)):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (num, *shape), dtype=np.uint8), (np.arange(num) % num_classes).astype(np.uint8)


def save_plain(folder, name="mine", **changes):
    images, labels = arrays()
    content = {"images": images, "labels": labels, **changes}
    np.savez(folder / f"{name}.npz", **{key: values for key, values in content.items() if values is not None})
    return NpzData(source="npz", name=name, root=str(folder), download=False)


def save_splits(folder, name="mine", column=False, **changes):
    content = {}
    for number, (split, num) in enumerate((("train", 30), ("val", 9), ("test", 12))):
        images, labels = arrays(num, seed=number, shape=(6, 6))
        content |= {f"{split}_images": images, f"{split}_labels": labels[:, None] if column else labels}
    content |= changes
    np.savez(folder / f"{name}.npz", **{key: values for key, values in content.items() if values is not None})
    return NpzData(source="npz", name=name, root=str(folder), download=False)


# --- what all sources share ---


def test_the_train_split_is_normalised_per_channel_and_the_others_by_it(tmp_path):
    images, labels = arrays()
    images[..., 1] = 7  # a constant channel must not become NaN
    data = load(save_plain(tmp_path, images=images, labels=labels))
    assert data.train.images.mean((0, 2, 3)).numpy() == pytest.approx(np.zeros(3), abs=1e-5)
    assert data.train.images.std((0, 2, 3), correction=0).numpy() == pytest.approx([1, 0, 1], abs=1e-5)
    raw = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    train = raw[data.train.ids][:, 0]
    expected = (raw[data.test.ids][:, 0] - train.mean()) / train.std(correction=0)
    torch.testing.assert_close(data.test.images[:, 0], expected)


def test_shapes_types_and_ids(tmp_path):
    data = load(save_plain(tmp_path))
    parts = data.train, data.val, data.test
    assert [len(part) for part in parts] == [36, 9, 15]
    assert sorted(torch.cat([part.ids for part in parts]).tolist()) == list(range(60))
    for part in parts:
        assert part.images.shape == (len(part), 3, 6, 6)
        assert part.images.dtype == torch.float32
        assert part.ids.dtype == part.labels.dtype == part.clean_labels.dtype == torch.int64
        assert (part.labels == part.ids % 3).all()
        assert part.groups is None
    assert (data.num_classes, data.class_names, data.image_shape) == (3, ["0", "1", "2"], (3, 6, 6))
    assert data.name == "d" + data.hash[:12]


def test_loading_twice_reads_once(tmp_path):
    config = save_plain(tmp_path)
    assert load(config) is load(config.model_copy())


def test_noise_is_on_the_training_labels_only_and_nests(tmp_path):
    config = save_plain(tmp_path)
    some, more = (load(config.model_copy(update={"label_noise": noise})) for noise in (0.2, 0.5))
    flipped = some.train.labels != some.train.clean_labels
    assert 0 < flipped.sum() < (more.train.labels != more.train.clean_labels).sum()
    assert (more.train.labels[flipped] == some.train.labels[flipped]).all()
    assert (some.train.clean_labels == load(config).train.labels).all()
    assert (some.test.labels == some.test.clean_labels).all()


def test_a_smaller_train_size_keeps_a_part_and_leaves_the_other_splits(tmp_path):
    config = save_plain(tmp_path)
    few, some = (load(config.model_copy(update={"train_size": size})) for size in (6, 18))
    assert len(few.train) == 6
    assert set(few.train.ids.tolist()) < set(some.train.ids.tolist())
    assert (few.test.ids == some.test.ids).all()
    with pytest.raises(DataError, match="train_size is 37, but the train split has 36"):
        load(config.model_copy(update={"train_size": 37}))


def test_the_hash_changes_with_one_pixel_one_label_the_noise_and_the_split(tmp_path):
    images, labels = arrays()
    hashes = [load(save_plain(tmp_path, "plain")).hash]
    images[17, 2, 3, 1] ^= 1
    hashes.append(load(save_plain(tmp_path, "pixel", images=images)).hash)
    labels[17] = (labels[17] + 1) % 3
    hashes.append(load(save_plain(tmp_path, "label", labels=labels)).hash)
    for update in ({"label_noise": 0.3}, {"split_seed": 1}, {"train_size": 20}):
        hashes.append(load(save_plain(tmp_path, "plain").model_copy(update=update)).hash)
    assert len(set(hashes)) == len(hashes)
    assert load(save_plain(tmp_path, "copy")).hash == hashes[0]


def test_test_images_that_are_trained_on_are_counted_in_the_notes(tmp_path):
    images, _ = arrays(30, shape=(6, 6))
    config = save_splits(tmp_path, test_images=images[:12])
    assert load(config).notes == ["12 of 12 test images are also in the train split, byte for byte."]
    assert load(save_splits(tmp_path, "disjoint")).notes == []


def test_the_default_data_are_the_ones_they_always_were():
    """Its name stands in results: a change of generator, split or hash must be meant."""
    data = load(CellsData())
    assert data.name == "d8baf6cce4665"
    assert data.notes == []


def test_importing_the_data_package_imports_no_torchvision():
    command = "import sys, trainables.data, trainables.vision; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=REPOSITORY)


# --- npz ---


def test_labels_of_one_and_of_two_axes_are_equal(tmp_path):
    flat, column = load(save_splits(tmp_path, "flat")), load(save_splits(tmp_path, "column", column=True))
    assert flat.hash == column.hash
    assert [len(part) for part in (flat.train, flat.val, flat.test)] == [30, 9, 12]
    assert flat.image_shape == (1, 6, 6)


def test_an_archive_is_found_by_path_in_root_with_and_without_suffix_and_in_its_own_folder(tmp_path):
    hashes = {load(save_plain(tmp_path)).hash}
    hashes.add(load(NpzData(source="npz", name=str(tmp_path / "mine.npz"), root="nowhere")).hash)
    hashes.add(load(NpzData(source="npz", name="mine.npz", root=str(tmp_path))).hash)
    (tmp_path / "other" / "mine").mkdir(parents=True)
    save_plain(tmp_path / "other" / "mine")
    hashes.add(load(NpzData(source="npz", name="mine", root=str(tmp_path / "other"))).hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("key", ["groups", "image_id"])
def test_groups_stay_together(tmp_path, key):
    data = load(save_plain(tmp_path, **{key: np.arange(60) // 5}))
    groups = [set(part.groups) for part in (data.train, data.val, data.test)]
    assert len(groups[0] | groups[1] | groups[2]) == 12 == sum(map(len, groups))
    assert data.train.groups == [str(number // 5) for number in data.train.ids.tolist()]


IMAGES, LABELS = arrays()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, r"mine\.npz: no array images; it has labels"),
        (
            {"labels": None, "labelz": LABELS},
            r"no array labels or label; it has images, labelz\. Did you mean labelz\?",
        ),
        ({"images": IMAGES / 255}, r"mine\.npz, images: images must be uint8 \(0 to 255\), but the array is float64\."),
        ({"images": np.full_like(IMAGES, np.nan, np.float32)}, "float32 and holds NaN"),
        ({"images": IMAGES[..., :2]}, r"images must be \[sample, height, width\] .* but the shape is \(60, 6, 6, 2\)"),
        ({"labels": LABELS[:50]}, r"mine\.npz, labels: labels must be \[60\] or \[60, 1\].* shape is \(50,\)"),
        ({"labels": np.full(60, np.nan)}, r"labels must be integers, but the array is float64 and holds NaN"),
        ({"labels": LABELS.astype(int) - 1}, r"labels lie between -1 and 1, allowed are 0 to 1"),
        ({"class_names": np.array(["a", "b"])}, r"labels lie between 0 and 2, allowed are 0 to 1"),
        ({"labels": LABELS * 2}, r"labels must be 0 to 4 without gaps, but no image has label 1"),
        ({"labels": LABELS * 0}, r"1 class\(es\) found, at least 2 are needed"),
        ({"groups": np.arange(59)}, r"groups: must be \[60\], one per image, but the shape is \(59,\)"),
        (
            {"labels": np.array([{}] * 60)},
            r"mine\.npz cannot be read as a \.npz archive of plain arrays: .*allow_pickle",
        ),
    ],
)
def test_a_bad_plain_archive_is_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load(save_plain(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, r"mine\.npz: no array val_labels; it has .*Did you mean"),
        ({"train_images": None}, r"mine\.npz: no array train_images"),
        (
            {"val_images": arrays(9, shape=(5, 6))[0]},
            r"val_images: one image is \(1, 5, 6\) .* train_images \(1, 6, 6\)",
        ),
        ({"test_labels": arrays(11)[1]}, r"mine\.npz, test_labels: labels must be \[12\]"),
    ],
)
def test_a_bad_archive_with_splits_is_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load(save_splits(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_a_broken_archive_is_refused(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.npz cannot be read as a \.npz archive"):
        load(NpzData(source="npz", name="mine", root=str(tmp_path)))


def test_a_single_array_is_refused(tmp_path):
    with (tmp_path / "mine.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match="it holds a single array"):
        load(NpzData(source="npz", name="mine", root=str(tmp_path)))


def test_an_unknown_name_is_refused_with_the_nearest_ones(tmp_path):
    with pytest.raises(DataError, match=r"'breastmist' is no MedMNIST name .* Did you mean breastmnist"):
        load(NpzData(source="npz", name="breastmist", root=str(tmp_path)))
    save_plain(tmp_path, "cells28")
    with pytest.raises(DataError, match=r"Did you mean cells28\?"):
        load(NpzData(source="npz", name="cells_28", root=str(tmp_path)))


def test_several_labels_per_image_are_refused(tmp_path):
    with pytest.raises(DataError, match="chestmnist: its images have several labels each"):
        load(NpzData(source="npz", name="chestmnist", root=str(tmp_path)))


def serve(monkeypatch, content):
    """Replaces the network by `content`, bytes or an exception; returns the addresses asked for."""
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_an_absent_file_is_not_downloaded_unless_allowed(tmp_path, monkeypatch):
    asked = serve(monkeypatch, b"")
    with pytest.raises(DataError, match=r"pathmnist\.npz is absent and data\.download is false\. Download https://zenodo"):
        load(NpzData(source="npz", name="pathmnist", root=str(tmp_path), download=False))
    assert asked == []


@pytest.mark.parametrize("content", [urllib.error.URLError("no route"), TimeoutError("timed out"), b"something else"])
def test_a_download_that_fails_leaves_nothing_and_says_where_the_file_goes(tmp_path, monkeypatch, content):
    serve(monkeypatch, content)
    problem = "the download had MD5" if isinstance(content, bytes) else rf"the download failed \(.*{content.args[0]}"
    with pytest.raises(DataError, match=rf"{problem}.*save it as {tmp_path / 'root' / 'pathmnist.npz'}"):
        load(NpzData(source="npz", name="pathmnist", root=str(tmp_path / "root")))
    assert list((tmp_path / "root").iterdir()) == []


def test_a_download_with_the_published_hash_is_kept(tmp_path, monkeypatch):
    save_splits(tmp_path, "served")
    content = (tmp_path / "served.npz").read_bytes()
    asked = serve(monkeypatch, content)
    monkeypatch.setitem(npz._MEDMNIST, "pathmnist", hashlib.md5(content).hexdigest())
    data = load(NpzData(source="npz", name="pathmnist", root=str(tmp_path / "root")))
    assert asked == ["https://zenodo.org/records/10519652/files/pathmnist.npz?download=1"]
    assert (tmp_path / "root" / "pathmnist.npz").read_bytes() == content
    assert len(data.train) == 30
    assert data.notes == []


@needs("breastmnist")
def test_breastmnist():
    data = load(NpzData(source="npz", name="breastmnist", root=str(SHARED), download=False))
    assert [len(part) for part in (data.train, data.val, data.test)] == [546, 78, 156]
    assert [part.labels.bincount().tolist() for part in (data.train, data.val, data.test)] == [
        [147, 399],
        [21, 57],
        [42, 114],
    ]
    assert data.image_shape == (1, 28, 28)
    assert len(data.notes) == 2
    assert "differs from the published 750601b1f35ba3300ea97c75c52ff8f6" in data.notes[0]
    assert "1 of 156 test images" in data.notes[1]


@needs("bccd_cells")
def test_bccd_cells_are_split_by_image():
    data = load(NpzData(source="npz", name="bccd_cells28", root=str(SHARED / "bccd_cells")))
    groups = [set(part.groups) for part in (data.train, data.val, data.test)]
    assert len(groups[0] | groups[1] | groups[2]) == 364 == sum(map(len, groups))
    assert data.class_names == ["RBC", "WBC", "Platelets"]
    totals = sum(part.labels.bincount(minlength=3) for part in (data.train, data.val, data.test))
    assert totals.tolist() == [4153, 372, 361]
    assert (data.test.labels == 0).float().mean().item() == pytest.approx(4153 / 4886, abs=0.02)
