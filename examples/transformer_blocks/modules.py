"""The blocks of the lesson as source text: each defines a module and makes a `Block` of it."""

SOURCES = {
    "vanilla": """class SelfAttention(nn.Module):
    def __init__(self, dim=512):
        super().__init__()
        self.dim = dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x, mask):  # [B, S, E], [B, S, S] -> [B, S, E]
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = q @ k.transpose(-2, -1) / self.dim**0.5
        scores = scores.masked_fill(mask == 0, -1e3)
        return self.out(scores.softmax(-1) @ v)


x = torch.randn(2, 128, 512)
mask = (torch.rand(2, 128, 128) > 0.2).float()
vanilla = Block("vanilla", SelfAttention(), {"x": x, "mask": mask})
vanilla.compared()""",
    "heads": """class ManyHeads(nn.Module):
    def __init__(self, dim=512, heads=8):
        super().__init__()
        self.heads, self.size = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x, mask):  # [B, S, E], [B, S] -> [B, S, E]
        b, s, e = x.shape
        q, k, v = (t.view(b, s, self.heads, self.size).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) / self.size**0.5
        scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
        context = scores.softmax(-1) @ v
        return self.out(context.transpose(1, 2).reshape(b, s, e))


mask = torch.ones(2, 128)
mask[1, 100:] = 0
heads = Block("heads", ManyHeads(), {"x": x, "mask": mask})
heads.compared()""",
    "ragged": """class Ragged(nn.Module):
    def __init__(self, dim=256, heads=4, vocabulary=1000):
        super().__init__()
        self.words = nn.Embedding(vocabulary, dim)
        self.positions = nn.Embedding(512, dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = ManyHeads(dim, heads)
        self.after = nn.LayerNorm(dim)

    def forward(self, input_ids, attention_mask):  # [B, S], [B, S] -> [B, S, E]
        places = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.positions(places))
        x = self.after(x + self.attention(x, attention_mask))
        return x * attention_mask[:, :, None]  # rows of padding mean nothing; zeros, so that they can be compared


ids = torch.randint(0, 1000, (4, 64))
full = torch.ones(4, 64, dtype=torch.long)
ragged = Block("ragged", Ragged(), {"input_ids": ids, "attention_mask": full})
ragged.compared()""",
    "cross": """class Cross(nn.Module):
    def __init__(self, dim=256, heads=4):
        super().__init__()
        self.heads, self.size = heads, dim // heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, self.size).transpose(1, 2)

    def forward(self, x, memory):  # [B, S, E], [B, M, E] -> [B, S, E]
        q, k, v = self.split(self.q(x)), self.split(self.k(memory)), self.split(self.v(memory))
        context = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(context.transpose(1, 2).flatten(2))


inputs = {"x": torch.randn(2, 20, 256), "memory": torch.randn(2, 96, 256)}
axes = {"x": {0: "B", 1: "S"}, "memory": {0: "B", 1: "M"}}
cross = Block("cross", Cross(), inputs, axes)
cross.compared()""",
    "bert": """from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = BertLayer(BertConfig(attn_implementation="sdpa"))

    def forward(self, x):  # [B, S, E] -> [B, S, E]
        out = self.layer(x)
        return out[0] if isinstance(out, tuple) else out


bert = Block("bert", OneLayer(), {"x": torch.randn(1, 128, 768)})
bert.compared()""",
    "prefill": """class Decoder(nn.Module):
    def __init__(self, dim=256, heads=4):
        super().__init__()
        self.heads, self.size = heads, dim // heads
        self.before, self.middle = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def split(self, x):  # [B, S, E] -> three of [B, N, S, D]
        b, s, _ = x.shape
        return [t.view(b, s, self.heads, self.size).transpose(1, 2) for t in self.qkv(self.before(x)).chunk(3, -1)]

    def finish(self, x, context):
        x = x + self.out(context.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.middle(x)), approximate="tanh"))

    def forward(self, x):  # [B, S, E] -> [B, S, E]
        q, k, v = self.split(x)
        return self.finish(x, nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


prefill = Block("prefill", Decoder(), {"x": torch.randn(2, 96, 256)})
prefill.compared()""",
    "decode": """class Step(Decoder):
    def forward(self, x, past_k, past_v):  # [B, 1, E], [B, N, P, D] twice -> [B, 1, E] and the longer caches
        q, k, v = self.split(x)
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        return self.finish(x, nn.functional.scaled_dot_product_attention(q, k, v)), k, v


past = torch.randn(2, 4, 96, 64)
inputs = {"x": torch.randn(2, 1, 256), "past_k": past, "past_v": past.flip(0)}
axes = {"x": {0: "B"}, "past_k": {0: "B", 2: "P"}, "past_v": {0: "B", 2: "P"}}
decode = Block("decode", Step(), inputs, axes)
decode.compared()""",
    "gpt": """import tempfile

import qontext as qx
from transformers import GPT2Config, GPT2LMHeadModel

sizes = {"vocab_size": 5000, "n_positions": 256, "n_embd": 256, "n_layer": 2, "n_head": 4}
config = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
with tempfile.TemporaryDirectory() as folder:
    GPT2LMHeadModel(config).eval().save_pretrained(folder)
    model = qx.import_model(folder)
    gpt = qx.build(model, tune=False)
gpt_prefill = Program("gpt-prefill", model, gpt, "prefill", batch=2, length=96)
gpt_decode = Program("gpt-decode", model, gpt, "decode", batch=2, length=96)
[len(tokens) for tokens in gpt.generate([[5, 6, 7], [8, 9]], max_new_tokens=4)]""",
}
