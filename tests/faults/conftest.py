"""The workshop for all tests of faults in this process, and the tally at the end of each row."""

import functools

import pytest
from faults.scenes import Scene
from faults.workshop import SEED, WHOLE, Tally, Workshop


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"faults: {'all' if WHOLE else 'a part'}, generated with FAULTS_SEED={SEED}")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    made = Workshop(tmp_path_factory.mktemp("children"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def scene_of(workshop, tmp_path_factory):
    """The scene of a command; each is made once, since tests work in copies of it."""

    @functools.cache
    def make(command):
        return Scene(workshop, command, tmp_path_factory.mktemp(command))

    return make


@pytest.fixture
def tally(request):
    return Tally(request.node.originalname)
