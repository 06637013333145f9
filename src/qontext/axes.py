"""The axis legend: one letter per axis, the same in every shape string of the project."""

LEGEND = {
    "B": "batch (sequences)",
    "S": "query length (padded)",
    "Skv": "key and value length (padded)",
    "T": "packed tokens, the sum of all lengths",
    "Tkv": "packed key and value tokens",
    "N": "query heads",
    "Nkv": "key and value heads",
    "D": "head size of query and key",
    "Dv": "head size of value",
    "E": "hidden size",
    "F": "feed-forward size",
    "K": "input features of a linear layer",
    "M": "output features of a linear layer",
    "V": "vocabulary size",
    "P": "pages, or positions in an embedding table",
    "C": "channels",
    "R": "rotated pairs of a head",
    "G": "segments (token types)",
    "three": "the literal 3 of a fused Q, K, V projection",
}
