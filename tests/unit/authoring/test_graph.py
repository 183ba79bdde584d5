"""Cycles are found in any graph, and only where there are some."""

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from routing.authoring import graph

NODES = "abcdefg"
GRAPHS = st.fixed_dictionaries({node: st.sets(st.sampled_from(NODES), max_size=3) for node in NODES})


@given(GRAPHS)
def test_a_cycle_is_found_exactly_where_there_is_one(upstream: dict[str, set[str]]) -> None:
    """The standard library's sorter agrees, and what is returned is a walk along the arrows back to its start."""
    try:
        tuple(TopologicalSorter(upstream).static_order())
        expected = False
    except CycleError:
        expected = True
    cycle = graph.find_cycle(upstream)
    assert (cycle is not None) == expected
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(before in upstream[after] for before, after in pairwise(cycle))
