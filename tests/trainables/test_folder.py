"""Folders of images: both layouts, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from trainables.data import DataError, load
from trainables.recipe import FolderData


def write_images(folder, names=("cat", "dog"), num=10, mode="RGB", size=(20, 14)):
    generator = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number, suffix in zip(range(num), ["png", "JPG", "bmp", "tiff", "jpeg"] * num, strict=False):
            pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.{suffix}")
    (folder / names[0] / "notes.txt").write_text("no image")


def test_a_folder_per_class_is_split(tmp_path):
    write_images(tmp_path)
    data = load(FolderData(source="folder", path=str(tmp_path), image_size=8))
    assert [len(part) for part in (data.train, data.val, data.test)] == [12, 3, 5]
    assert data.class_names == ["cat", "dog"]
    assert data.image_shape == (3, 8, 8)


def test_gray_files_give_one_channel(tmp_path):
    write_images(tmp_path, mode="L")
    assert load(FolderData(source="folder", path=str(tmp_path), image_size=8)).image_shape == (1, 8, 8)


def test_split_folders_are_kept_and_val_is_drawn_from_train(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", num=3)
    data = load(FolderData(source="folder", path=str(tmp_path), image_size=8))
    assert [len(part) for part in (data.train, data.val, data.test)] == [16, 4, 6]
    assert data.test.ids.tolist() == [20, 21, 22, 23, 24, 25]


def test_bad_folders_are_refused(tmp_path):
    def message_of(path):
        with pytest.raises(DataError) as caught:
            load(FolderData(source="folder", path=str(path), image_size=8))
        return str(caught.value)

    write_images(tmp_path / "animals")
    assert "is no folder. Did you mean animals? Put the images into" in message_of(tmp_path / "animls")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    assert "1 class folder(s) found (cat); at least 2" in message_of(tmp_path / "one")
    (tmp_path / "one" / "dog").mkdir()
    assert "no images; file names may end in .png" in message_of(tmp_path / "one")
    Image.new("L", (4, 4)).save(tmp_path / "one" / "cat" / "a.png")
    assert "no image has label 1" in message_of(tmp_path / "one")
    (tmp_path / "one" / "dog" / "b.png").write_bytes(b"no image")
    assert "b.png cannot be read as an image" in message_of(tmp_path / "one")
    Image.new("F", (4, 4)).save(tmp_path / "one" / "dog" / "a.tif")
    assert "a.tif: pixels are of PIL's mode F" in message_of(tmp_path / "one")
    write_images(tmp_path / "splits" / "train")
    (tmp_path / "splits" / "valid").mkdir()
    assert "besides train there is 'valid'; allowed are train, val, test. Did you mean val?" in message_of(tmp_path / "splits")
