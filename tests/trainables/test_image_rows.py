"""The table of image statistics: once per data set, with thumbnails, and what it says without scikit-image."""

import io
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis import tables
from analysis.measures import image_statistics
from trainables import image_rows
from trainables.data import load, source_images
from trainables.image_rows import seconds_left, thumbnails, write_image_statistics
from trainables.recipe import CellsData

DATA = CellsData(num_images=60, image_size=12, num_slides=8)


def test_statistics_of_every_image_by_sample(store):
    write_image_statistics(store, [DATA])
    found = tables.read(store, "image_statistics").set_index("sample")
    data, images = load(DATA), source_images(DATA)
    assert sorted(found.index) == sorted(tables_ids(data))
    for name in ("entropy_float_grey", "edge_sum", "intensity_mean"):
        expected = image_statistics.STATISTICS[name].compute(images)
        assert found[name].to_numpy() == pytest.approx(expected[found.index])
    for sample in (0, 17):
        assert (np.asarray(Image.open(io.BytesIO(found["thumbnail"][sample]))).transpose(2, 0, 1) == images[sample]).all()
    assert set(found["dataset"]) == {data.name}


def tables_ids(data) -> list[int]:
    return [i for split in (data.train, data.val, data.test) for i in split.ids.tolist()]


def test_subsets_and_label_noise_are_measured_once_and_nothing_twice(store, monkeypatch):
    calls = []
    whole = image_rows.image_statistics
    monkeypatch.setattr(image_rows, "image_statistics", lambda images, *rest: calls.append(len(images)) or whole(images, *rest))
    configs = [DATA.model_copy(update={"label_noise": 0.5}), DATA.model_copy(update={"train_size": 20}), DATA]
    write_image_statistics(store, configs)
    assert calls == [60]
    found = {config: tables.read(store, "image_statistics", only=[load(config).name]).set_index("sample") for config in configs}
    assert len(found[configs[1]]) == len(tables_ids(load(configs[1]))) < 60
    pd.testing.assert_series_equal(found[configs[0]]["edge_sum"], found[configs[2]]["edge_sum"])
    few = found[configs[1]]
    assert few["edge_sum"].tolist() == found[configs[2]]["edge_sum"][few.index].tolist()
    write_image_statistics(store, configs)
    assert calls == [60]


def test_the_time_it_will_take_is_of_each_pool_once_over_processes_that_have_work(store, monkeypatch):
    monkeypatch.setattr(time, "process_time", iter(range(100)).__next__)  # a measurement takes a second
    monkeypatch.setattr(image_rows, "TIMED_PIXELS", 12 * 12 * 10)
    noisy = DATA.model_copy(update={"label_noise": 0.5})
    assert seconds_left(store, [DATA, noisy]) == 60 / 10
    assert seconds_left(store, [DATA], num_processes=2) == 60 / 10  # all are one chunk
    monkeypatch.setattr(image_rows, "CHUNK_PIXELS", 12 * 12 * 20)
    assert seconds_left(store, [DATA], num_processes=2) == 60 / 10 / 2
    write_image_statistics(store, [DATA])
    assert seconds_left(store, [DATA]) == 0


def test_without_scikit_image_it_says_so_and_with_it_later_mends_it(store, monkeypatch):
    monkeypatch.setattr(image_rows, "has_segments", lambda: False)
    assert "pip install 'karenina-sweep[images]'" in write_image_statistics(store, [DATA])[0]
    assert tables.read(store, "image_statistics")["segment_count"].isna().all()
    assert write_image_statistics(store, [DATA]) == []
    pytest.importorskip("skimage")
    monkeypatch.setattr(image_rows, "has_segments", lambda: True)
    assert write_image_statistics(store, [DATA]) == []
    assert tables.read(store, "image_statistics")["segment_count"].notna().all()


def test_thumbnails_are_few_and_small(monkeypatch):
    monkeypatch.setattr(image_rows, "MAX_THUMBNAILS", 3)
    found = thumbnails(np.zeros((5, 1, 200, 100), dtype=np.uint8))
    kept = [png for png in found if png is not None]
    assert len(kept) == 3
    assert Image.open(io.BytesIO(kept[0])).size == (32, 64)
    assert found == thumbnails(np.zeros((5, 1, 200, 100), dtype=np.uint8))
