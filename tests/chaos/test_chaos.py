"""Rounds of faults against a running sweep; `python -m tests.chaos` does more of them."""

import os
import random
import shutil

import pytest

pytest.importorskip("boto3")

from tests.chaos.__main__ import rounds, undisturbed
from tests.chaos.faults import FAULTS
from tests.chaos.rounds import Round

IN_CI = (163,)
KINDS = ["driver", "worker", "second"]


def test_a_round():
    """A worker is killed as soon as there is one, then the driver, and a second driver comes; none of it needs a mount or a compiler."""
    with undisturbed() as (reference, url):
        assert {moment.fault for moment in Round.of(IN_CI[0], KINDS).moments} == set(KINDS)
        assert rounds(reference, url, IN_CI, KINDS) == len(IN_CI)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_search_that_is_killed_is_told_of_each_family_once():
    with undisturbed("search") as (reference, url):
        assert rounds(reference, url, (163, 7), KINDS) == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_rounds_of_every_fault():
    possible = [kind for kind in FAULTS if (kind != "disk" or os.geteuid() == 0) and (kind != "clock" or shutil.which("cc"))]
    with undisturbed() as (reference, url):
        assert rounds(reference, url, range(10), possible) == 10


def test_a_round_is_drawn_from_its_seed_alone():
    drawn = [Round.of(seed, list(FAULTS)) for seed in range(200)]
    random.seed(1)
    assert drawn == [Round.of(seed, list(FAULTS)) for seed in range(200)]
    assert len({str(one) for one in drawn}) == 200
    assert {moment.fault for one in drawn for moment in one.moments} == {kind for kind, fault in FAULTS.items() if fault}
    assert any(one.rate and one.where == "s3" for one in drawn)
    assert all(one.where == "disk" for one in drawn for moment in one.moments if moment.fault == "disk")
