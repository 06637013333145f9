"""Names and origins of imported nodes: unique names for all, and the module path of the model they came from."""

import re

import onnx_ir as ir

from ..graph.ledger import set_origin

_SCOPES = "pkg.torch.onnx.name_scopes"
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def name_nodes(graph: ir.Graph) -> None:
    """Gives every node a name of its own; what has one keeps it."""
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for node in graph:
        base = node.name or node.op_type
        name = base
        while name in taken or (not node.name and name == base):
            counts[base] = counts.get(base, 0) + 1
            name = f"{base}_{counts[base]}"
        taken.add(name)
        node.name = name


def set_origins(graph: ir.Graph) -> None:
    """Writes the origin of every node: a dotted module path where the exporter left one, else nothing."""
    for node in graph:
        origin = _from_scopes(node.metadata_props.get(_SCOPES)) or _from_path(node.name or "")
        if origin:
            set_origin(node, origin)


def _from_scopes(text: str | None) -> str:
    """The module of a dynamo export: its scopes are the list "['', 'bert', 'bert.encoder', 'linear_3']"."""
    if not text:
        return ""
    scopes = [a or b for a, b in _QUOTED.findall(text[:100_000])]
    # The last scope is the call itself; before it stands the module that makes the call.
    return scopes[-2] if len(scopes) > 1 and not scopes[-2].startswith("_empty_nn_module_stack") else ""


def _from_path(name: str) -> str:
    """The module of a TorchScript export, which names nodes "/bert/encoder/layer.0/attention/self/MatMul"."""
    if not name.startswith("/"):
        return ""
    return ".".join(part for part in name.split("/")[1:-1] if part)
