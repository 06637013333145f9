"""Symbolic dimensions: text, arithmetic, values."""

import pytest

from qontext.graph.dims import Dim, parse_dim, product, symbol, text, times


@pytest.mark.parametrize("written", ["B", "B*S", "12*B", "2*B*S", "S+1", "3*S-2"])
def test_text_round_trip(written):
    assert str(parse_dim(written)) == written


@pytest.mark.parametrize(
    ("written", "meaning"), [("768", 768), (5, 5), (None, None), ("a;b", None), ("max(a,b)", None)]
)
def test_other_texts(written, meaning):
    assert parse_dim(written) == meaning


def test_products():
    b, s = symbol("B"), symbol("S")
    assert str(times(b, s)) == "B*S" == str(times(s, b))
    assert str(product([b, 12, s, 64])) == "768*B*S"
    assert product([]) == 1
    assert times(Dim(("S",), 1, 1), b) is None
    assert times(None, 3) is None


def test_values():
    assert Dim(("B", "S"), 3, -1).value({"B": 2, "S": 5}) == 29
    with pytest.raises(KeyError):
        symbol("B").value({})
    assert text((symbol("B"), None, 7)) == "[B, ?, 7]"
