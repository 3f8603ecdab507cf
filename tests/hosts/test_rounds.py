"""What is drawn for rounds of faults on hosts."""

import random

from tests.hosts.chaos import FAULTS, Round


def test_a_round_is_drawn_from_its_seed_alone():
    drawn = [Round.of(seed, [2, 3]) for seed in range(200)]
    random.seed(1)
    assert drawn == [Round.of(seed, [2, 3]) for seed in range(200)]
    assert len({str(one) for one in drawn}) == 200
    assert {moment.fault for one in drawn for moment in one.moments} == set(FAULTS)
    assert {one.num_hosts for one in drawn} == {2, 3}
    assert all(moment.worker < one.num_hosts - 1 for one in drawn for moment in one.moments)
    assert all(one.num_hosts == 3 for one in drawn for moment in one.moments if moment.fault == "lost")
