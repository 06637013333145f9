"""Tiny random decoders of transformers, as folders and as oracles."""

import torch
import transformers

VOCABULARY = 97


def gpt2(**changes):
    settings = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 4}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, **_ends(), **changes))


def llama(**changes):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**_sizes(), **_ends(), **changes}))


def mistral(**changes):
    return transformers.MistralForCausalLM(transformers.MistralConfig(**{**_sizes(), **_ends(), **changes}))


def qwen2(**changes):
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**{**_sizes(), **_ends(), **changes}))


def _sizes():
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }


def _ends():
    return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def saved(model, folder, seed=0):
    """The model with random weights of a size at which tokens differ, written to a folder."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:
                parameter.add_(1.0)
    model.eval().save_pretrained(folder)
    return model


def prompts(*lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def worst_step(engine, model, given, settings, same_tokens=True):
    """Generates, and compares the logits of every step with the oracle run on the whole sequence.

    Returns the largest relative error and the tokens of each sequence; tokens that differ fail, unless told otherwise.
    """
    whole, worst = [list(p) for p in given], 0.0
    for step in engine.generator.steps(given, settings):
        for row, token, logits in zip(step.rows, step.tokens, step.logits.cpu(), strict=True):
            with torch.no_grad():
                want = model(torch.tensor([whole[row]])).logits[0, -1]
            worst = max(worst, float((logits - want).norm() / want.norm()))
            assert not same_tokens or token == int(want.argmax())
            whole[row].append(token)
    return worst, [tokens[len(p) :] for tokens, p in zip(whole, given, strict=True)]
