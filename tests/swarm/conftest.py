"""A site that can run on a swarm, and the hosts of that swarm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from nodes import Nodes, build

from harness import Stack, copy_tree, has_engine, missing, new_name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A site whose image this host's engine has built, and which nobody has started."""
    if not has_engine():
        missing("no Docker engine answers")
    made = Stack(copy_tree(tmp_path_factory.mktemp("swarm")), new_name())
    made.create(SOC_BIND="0.0.0.0")
    return made


@pytest.fixture(scope="module")
def nodes(site: Stack) -> Iterator[Nodes]:
    """Three managers; none has any of the site's images."""
    build()
    made = Nodes(site.project, 3, site.folder)
    try:
        made.start()
        yield made
    finally:
        made.remove()
