"""The workshop for all tests of faults in this process, and the tally at the end of each row."""

import pytest
from faults.workshop import SEED, WHOLE, Tally, Workshop


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"faults: {'all' if WHOLE else 'a part'}, generated with FAULTS_SEED={SEED}")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    made = Workshop(tmp_path_factory.mktemp("children"))
    yield made
    made.close()


@pytest.fixture
def tally(request):
    return Tally(request.node.originalname)
