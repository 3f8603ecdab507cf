"""A sweep over a head and two workers on separate hosts, one lost for good and one for a while."""

import pytest

from tests.hosts.__main__ import faults
from tests.hosts.lab import script

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        script() is None, reason="HOSTS_SH does not name a script that makes hosts (tests/hosts/lab.py), or this is not root"
    ),
]


def test_lost_workers_change_no_bit(tmp_path):
    assert faults(tmp_path) == 0
