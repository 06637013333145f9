"""Decoders from Hugging Face folders: logits of every step against transformers, caches of both layouts."""

import decoders
import pytest
import torch

import qontext as qx
from qontext.errors import ArgumentError, InputError, ModelFormatError, UnsupportedModelError, WeightsError
from qontext.generation.loop import Settings

# name: (make, arguments)
FAMILIES = {
    "gpt2": (decoders.gpt2, {}),
    "gpt2_by_layer": (decoders.gpt2, {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False}),
    "llama": (decoders.llama, {}),
    "llama_biases": (decoders.llama, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama_head_dim": (decoders.llama, {"head_dim": 20, "num_key_value_heads": 1}),
    "llama_linear": (decoders.llama, {"rope_scaling": {"rope_type": "linear", "factor": 3.0, "rope_theta": 5e5}}),
    "llama3": (
        decoders.llama,
        {
            "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16, "rope_theta": 1e4,
            }
        },
    ),
    "llama_yarn": (
        decoders.llama,
        {
            "rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4
            }
        },
    ),
    "mistral_window": (decoders.mistral, {"sliding_window": 6}),
    "qwen2": (decoders.qwen2, {}),
}  # fmt: skip
PROMPTS = decoders.prompts(3, 11, 1, 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_step_equals_transformers(name, tmp_path):
    """Prompts of unequal lengths in one batch; a page of 4 tokens, prompts in parts of at most 8 tokens."""
    make, changes = FAMILIES[name]
    model = decoders.saved(make(**changes), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    settings = Settings(8, tokens_per_page=4, prefill_tokens=8)
    worst, paged = decoders.worst_step(engine, model, PROMPTS, settings)
    assert worst < 1e-5
    pages = engine.generator.caches.pages
    assert pages.free == pages.count
    assert pages.problems() == []
    assert engine.generate(PROMPTS, 8, tokens_per_page=0) == paged
    assert len({tuple(t) for t in paged}) > 1, "all sequences collapsed onto the same tokens; the test shows nothing"


def test_dynamic_scaling_equals_transformers(tmp_path):
    """One sequence, since transformers scales by the longest of the batch; within the trained length, and beyond it."""
    changes = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}
    model = decoders.saved(decoders.llama(max_position_embeddings=16, **changes), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False, max_length=64)
    for length in (10, 24):
        ids = torch.tensor(decoders.prompts(length))
        with torch.no_grad():
            want = model(ids).logits
        assert float((engine.run({"input_ids": ids})["logits"] - want).norm() / want.norm()) < 1e-5


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    model = decoders.saved(decoders.llama(), folder)
    return folder, model, qx.build(qx.import_model(folder), tune=False)


def test_run_gives_logits_of_right_padded_input(small):
    _, model, engine = small
    ids = torch.zeros(2, 9, dtype=torch.int64)
    mask = torch.zeros(2, 9, dtype=torch.int64)
    for row, prompt in enumerate(decoders.prompts(9, 4)):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
    got = engine.run({"input_ids": ids, "attention_mask": mask})["logits"]
    for row, length in enumerate((9, 4)):
        with torch.no_grad():
            want = model(ids[row : row + 1, :length]).logits[0]
        assert float((got[row, :length] - want).norm() / want.norm()) < 1e-5
        assert not got[row, length:].any()
    with pytest.raises(InputError, match="row 1 of attention_mask has a token behind padding"):
        engine.run({"input_ids": ids, "attention_mask": mask.flip(1)})


def test_saved_engine_generates_the_same(small, tmp_path):
    _, _, engine = small
    engine.save(tmp_path / "small.qx")
    assert qx.load(tmp_path / "small.qx").generate(PROMPTS, 6) == engine.generate(PROMPTS, 6)


def test_prompts_in_parts_and_streams_give_the_same(small):
    _, _, engine = small
    whole = engine.generate(PROMPTS, 6)
    assert engine.generate(PROMPTS[1], 6) == whole[1]
    streamed = [[] for _ in PROMPTS]
    for row, token in engine.generate(PROMPTS, 6, stream=True, tokens_per_page=3):
        streamed[row].append(token)
    assert streamed == whole
    parts = [list(step.tokens) for step in engine.generator.steps(PROMPTS[1:2], Settings(6, prefill_tokens=2))]
    assert [t for part in parts for t in part] == whole[1]


def test_ends_stop_their_sequence_alone(small):
    _, _, engine = small
    whole = engine.generate(PROMPTS, 6)
    end = whole[0][2]
    cut = [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in whole]
    engine.config["end_token_ids"] = [end]
    try:
        assert engine.generate(PROMPTS, 6) == cut
        assert engine.generate(PROMPTS, 6, ignore_eos=True) == whole
    finally:
        engine.config["end_token_ids"] = []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_near(small, precision):
    folder, model, _ = small
    engine = qx.build(qx.import_model(folder), precision, tune=False)
    first = next(engine.generator.steps(PROMPTS, Settings(1)))
    for row, logits in zip(first.rows, first.logits, strict=True):
        with torch.no_grad():
            want = model(torch.tensor([PROMPTS[row]])).logits[0, -1]
        assert float((logits - want).norm() / want.norm()) < 5e-2


def test_a_build_leaves_the_model_as_it_was(small):
    """One model, several precisions, in any order: each engine has the caches and the numbers of its own."""
    folder, _, engine = small
    model = qx.import_model(folder)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("fp16", torch.float16)):
        built = qx.build(model, precision, tune=False)
        found = built.generate(PROMPTS, 3)
        assert {t.dtype for t in built.generator.caches.tensors.values()} == {dtype}
        if precision == "fp32":
            assert found == engine.generate(PROMPTS, 3)


def test_programs_share_their_weights(small):
    folder, _, engine = small
    assert list(engine.compiled.programs) == ["encode", "prefill", "decode", "beams"]
    low = qx.build(qx.import_model(folder), "bf16", tune=False)
    for built in (engine, low):
        memory = [
            {t.data_ptr() for t in program.constants.values() if t.dim() == 2}
            for program in built.compiled.programs.values()
        ]
        assert memory[0] == memory[1] == memory[2] == memory[3]


def test_a_nan_in_one_sequence_leaves_its_neighbours_as_they_were(small):
    """Bit for bit; and all pages come back."""
    _, _, engine = small
    clean = [step.logits.clone() for step in engine.generator.steps(PROMPTS, Settings(3, tokens_per_page=4))]
    generator = engine.generator
    steps = generator.steps(PROMPTS, Settings(3, tokens_per_page=4))
    first = next(steps)
    caches = generator.caches
    page = caches.pages.table(min(caches.pages._sequences))[0]
    for tensor in caches.tensors.values():
        tensor[page] = float("nan")
    for step, want in zip(steps, clean[1:], strict=True):
        poisoned = step.rows.index(0)
        assert step.logits[poisoned].isnan().all()
        others = [i for i in range(len(step.rows)) if i != poisoned]
        assert torch.equal(step.logits[others], want[others])
    assert first.rows == tuple(range(len(PROMPTS)))
    assert caches.pages.free == caches.pages.count
    generator._caches = None


@pytest.mark.parametrize(
    ("prompts", "arguments", "message"),
    [
        ([[]], {}, "prompt 0 is empty"),
        ([[1, 97]], {}, "prompt 0 holds 97; tokens are whole numbers from 0 to 96"),
        ([[1] * 60], {}, "prompt 0 has 60 tokens and 8 new ones are asked for; the model has positions for 64"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (["text"], {}, "a prompt is text, but the model has no tokenizer"),
        ([[1] * 9], {"tokens_per_page": 4, "pages": 3}, r"prompt 0 is at token 12: 1 pages were wanted and 0 are free"),
        ([[1] * 9], {"tokens_per_page": -1}, "tokens_per_page is -1"),
    ],
)
def test_bad_prompts(small, prompts, arguments, message):
    _, _, engine = small
    with pytest.raises(InputError, match=message):
        engine.generate(prompts, **{"max_new_tokens": 8, **arguments})
    caches = engine.generator.caches
    assert caches is None or caches.pages.free == caches.pages.count


def test_encoders_do_not_generate():
    with pytest.raises(ArgumentError, match="demo-bert is no decoder"):
        qx.build("demo-bert", tune=False).generate([[1]])


def test_bad_folders(tmp_path, small):
    folder, _, _ = small
    import json
    import shutil

    shutil.copytree(folder, tmp_path / "x")
    config = json.loads((tmp_path / "x" / "config.json").read_text())

    def refused(error, message, **changes):
        (tmp_path / "x" / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(error, match=message):
            qx.import_model(tmp_path / "x")

    refused(ModelFormatError, "num_attention_heads is 'four', expected a whole number", num_attention_heads="four")
    refused(ModelFormatError, "num_attention_heads 4 is no multiple of num_key_value_heads 3", num_key_value_heads=3)
    refused(ModelFormatError, "rope_type is 'spiral'", rope_parameters={"rope_type": "spiral"})
    refused(WeightsError, r"misshaped: model.layers.0.mlp.up_proj.weight is \[80, 48\]", intermediate_size=81)
    refused(
        UnsupportedModelError,
        "architecture LlamaForSequenceClassification has no head",
        architectures=["LlamaForSequenceClassification"],
    )
    refused(UnsupportedModelError, "code of its own", auto_map={"AutoModel": "x.Y"})
    with pytest.raises(ArgumentError, match="task 'fill-mask' is for encoders; llama has generate"):
        qx.import_model(folder, task="fill-mask")
