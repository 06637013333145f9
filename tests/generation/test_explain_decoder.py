"""Explain of a decoder: phase, cache layout and bytes a token of every attention, measured shares."""

import decoders

import qontext as qx


def test_programs_say_their_phase_and_cache(tmp_path):
    decoders.saved(decoders.llama(), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), "bf16", tune=False)
    for program, phase in (("prefill", "context"), ("decode", "generation")):
        told = qx.explain(engine, batch=2, length=9, program=program)
        rows = told.data["caches"]
        assert [r["phase"] for r in rows] == [phase] * 3
        assert {(r["layout"], r["dtype"], r["bytes_per_token"]) for r in rows} == {
            ("paged", "bfloat16", 2 * 2 * 12 * 2)
        }
        steps = [s for s in told.data["steps"] if s["op"] == "GptAttention"]
        # Everything that a full cache of 2 sequences of 9 tokens holds is read once.
        assert all(s["us"] > 0 and s["share_of_ceiling"] > 0 and s["bytes"] >= 2 * 9 * 96 for s in steps)
        assert f"{phase} phase" in str(told)
        assert "all layers: 288 bytes a token" in str(told)
    assert {r["layout"] for r in qx.explain(engine, measure=False).data["caches"]} == {"none"}
