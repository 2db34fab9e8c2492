"""The published vectors of the envelope format, recomputed by a second implementation."""

import json
from pathlib import Path

import pytest

from envelope import STEPS

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "envelope"


def vectors():
    for path in sorted(VECTORS.glob("*.json")):
        for vector in json.loads(path.read_text()):
            yield pytest.param(vector, id=f"{path.stem}: {vector['why']}")


@pytest.mark.parametrize("vector", list(vectors()))
def test_a_vector_is_what_the_document_says(vector):
    recomputed = STEPS[vector["of"]](vector)
    expected = {name: vector[name] for name in recomputed}
    if vector["result"] == "invalid":
        # An altered one: it must differ in what is opened, and only there.
        last = list(recomputed)[-1]
        assert recomputed.pop(last) != expected.pop(last)
    assert recomputed == expected


def test_there_are_vectors_of_every_kind_and_both_results():
    kinds = {(vector.values[0]["of"], vector.values[0]["result"]) for vector in vectors()}
    assert {("envelope", "invalid"), ("value", "invalid")} < kinds
    assert {kind for kind, _ in kinds} == set(STEPS)
