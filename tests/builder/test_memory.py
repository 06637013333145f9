"""The memory plan: values alive at the same time never overlap, values that are not share."""

from hypothesis import given, settings
from hypothesis import strategies as st

from qontext.builder.memory import ALIGNMENT, Lifetime, plan_memory, size_class_of
from qontext.graph.dims import Dim, symbol

T = symbol("T")
BS = Dim(("B", "S"))


def test_size_classes_are_products_of_symbols():
    assert size_class_of((T, 768), 4) == (("T",), 3072)
    assert size_class_of((symbol("B"), symbol("S"), 3), 4) == (("B", "S"), ALIGNMENT)
    assert size_class_of((12, 5), 4) == ((), 256)
    assert size_class_of((None, 4), 4) is None
    assert size_class_of((Dim(("S",), 1, 1),), 4) is None


def test_a_chain_needs_two_places():
    lives = [Lifetime(i, (T, 768), 4, i, i + 1) for i in range(10)]
    layout = plan_memory(lives)
    assert layout.bytes_per_unit[("T",)] == 2 * 3072
    assert layout.total_bytes({"T": 100}) == 100 * 2 * 3072


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([(T, 8), (T, 48), (BS, 16), (7,)]), st.integers(0, 20), st.integers(0, 6)),
        min_size=1,
        max_size=40,
    )
)
def test_values_alive_together_never_overlap(items):
    lives = [Lifetime(i, shape, 4, first, first + extra) for i, (shape, first, extra) in enumerate(items)]
    layout = plan_memory(lives)
    for a in lives:
        for b in lives:
            if a.value >= b.value or a.first > b.last or b.first > a.last:
                continue
            pa, pb = layout.places[a.value], layout.places[b.value]
            if pa.size_class != pb.size_class:
                continue
            apart = (
                pa.offset_per_unit + pa.bytes_per_unit <= pb.offset_per_unit
                or pb.offset_per_unit + pb.bytes_per_unit <= pa.offset_per_unit
            )
            assert apart, (a, pa, b, pb)
    for place in layout.places.values():
        assert place.offset_per_unit % ALIGNMENT == 0
        assert place.offset_per_unit + place.bytes_per_unit <= layout.bytes_per_unit[place.size_class]
