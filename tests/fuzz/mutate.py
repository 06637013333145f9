"""Mutations of bytes, JSON values and ONNX models, all drawn from one seeded generator."""

import copy
import json
from random import Random
from typing import Any

import onnx

_NUMBERS = (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 65535, -(2**31), 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
_ODD: tuple[Any, ...] = (
    None, True, False, "", "x", "\0", "../x", "\ud7ff", "[MASK]", "a" * 5000, [], {}, [[]], [None], {"": ""},
    1e308, -0.5, 1e-320, *_NUMBERS, 2**70,
)  # fmt: skip


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """One to four edits: bits, bytes, numbers, slices cut out, doubled, moved, and cuts at the end."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(out)) if out else 0
        kind = random.randrange(7)
        if kind == 0 and out:
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1 and out:
            out[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif kind == 2:
            size = random.choice((1, 2, 4, 8))
            number = random.choice(_NUMBERS) % (1 << 8 * size)
            out[at : at + size] = number.to_bytes(size, random.choice(("little", "big")))
        elif kind == 3:
            del out[at : at + random.choice((1, 2, 8, 100))]
        elif kind == 4:
            out[at:at] = out[at : at + random.choice((1, 8, 100))] * random.choice((1, 2, 50))
        elif kind == 5 and out:
            other = random.randrange(len(out))
            size = random.choice((1, 8, 64))
            out[at : at + size] = out[other : other + size]
        else:
            del out[at:]
    return bytes(out)


def mutate_json(text: str, random: Random) -> str:
    """The text with one to three values of its tree changed, or now and then with its bytes changed."""
    if random.random() < 0.15:
        return mutate_bytes(text.encode(), random).decode("utf-8", "replace")
    tree = json.loads(text)
    for _ in range(random.randint(1, 3)):
        tree = _change(tree, random)
    return json.dumps(tree)


def _change(tree: Any, random: Random) -> Any:
    places = list(_places(tree))
    if not places:
        return random.choice(_ODD)
    holder, key = random.choice(places)
    kind = random.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, place = random.choice(places)
        holder[key] = copy.deepcopy(other[place])
    elif kind == 2 and isinstance(holder, dict):
        holder[str(random.choice((key, "type", "", "__class__"))) + random.choice(("", "s", "_"))] = random.choice(_ODD)
    elif kind == 3 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] = random.choice(
            (-holder[key], holder[key] * 2, holder[key] + 1, float(holder[key]), str(holder[key]))
        )
    elif kind == 4 and isinstance(holder[key], (str, list)):
        holder[key] = random.choice((holder[key] * 2, holder[key][:1], holder[key][::-1]))
    else:
        holder[key] = copy.deepcopy(random.choice(_ODD))
    return tree


def _places(tree: Any) -> Any:
    """Every (holder, key) of a tree, without recursion. Long lists and objects are entered at some places only."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys if len(keys) <= 60 else (*keys[:30], *keys[-30:]):
            yield node, key
            waiting.append(node[key])


def mutate_onnx(data: bytes, random: Random) -> bytes:
    """A model with one to three of its parts changed, or in a third of all cases with its bytes changed."""
    if random.random() < 0.33:
        return mutate_bytes(data, random)
    model = onnx.load_model_from_string(data)
    for _ in range(random.randint(1, 3)):
        random.choice((_node, _node, _attribute, _weight, _weight, _value, _whole))(model, random)
    return model.SerializeToString()


def _names(graph: onnx.GraphProto) -> list[str]:
    return [
        *(i.name for i in graph.initializer),
        *(i.name for i in graph.input),
        *(o for n in graph.node for o in n.output),
        "",
    ]


def _node(model: onnx.ModelProto, random: Random) -> None:
    graph = model.graph
    if not graph.node:
        return
    node = random.choice(graph.node)
    kind = random.randrange(5)
    if kind == 0:
        node.op_type = random.choice(
            [n.op_type for n in graph.node] + ["Loop", "Reshape", "Expand", "Tile", "Pad", "Nothing"]
        )
    elif kind == 1 and node.input:
        node.input[random.randrange(len(node.input))] = random.choice(_names(graph))
    elif kind == 2 and node.input:
        del node.input[random.randrange(len(node.input))]
    elif kind == 3:
        node.input.append(random.choice(_names(graph)))
    else:
        graph.node.remove(node)


def _attribute(model: onnx.ModelProto, random: Random) -> None:
    found = [a for n in model.graph.node for a in n.attribute]
    if not found:
        return
    attribute = random.choice(found)
    kind = random.randrange(4)
    if kind == 0:
        attribute.i = random.choice(_NUMBERS)
    elif kind == 1:
        attribute.ints.append(random.choice(_NUMBERS))
    elif kind == 2:
        attribute.type = random.randrange(0, 15)
    else:
        attribute.f = random.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))


def _weight(model: onnx.ModelProto, random: Random) -> None:
    if not model.graph.initializer:
        return
    tensor = random.choice(model.graph.initializer)
    kind = random.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(_NUMBERS)
    elif kind == 1:
        tensor.data_type = random.randrange(0, 28)
    elif kind == 2:
        tensor.raw_data = mutate_bytes(tensor.raw_data, random)
    elif kind == 3:
        tensor.dims.append(random.choice((0, 1, 2)))
    elif tensor.data_type == onnx.TensorProto.INT64 and len(tensor.raw_data) >= 8:
        at = 8 * random.randrange(len(tensor.raw_data) // 8)
        number = random.choice(_NUMBERS).to_bytes(8, "little", signed=True)
        tensor.raw_data = tensor.raw_data[:at] + number + tensor.raw_data[at + 8 :]


def _value(model: onnx.ModelProto, random: Random) -> None:
    value = random.choice([*model.graph.input, *model.graph.output] or [model.graph.input.add()])
    kind = random.randrange(4)
    if kind == 0:
        value.type.tensor_type.elem_type = random.randrange(0, 28)
    elif kind == 1:
        value.type.tensor_type.shape.dim.add().dim_value = random.choice(_NUMBERS)
    elif kind == 2 and value.type.tensor_type.shape.dim:
        random.choice(value.type.tensor_type.shape.dim).dim_value = random.choice(_NUMBERS)
    else:
        value.name = random.choice(_names(model.graph))


def _whole(model: onnx.ModelProto, random: Random) -> None:
    kind = random.randrange(4)
    if kind == 0:
        model.opset_import[0].version = random.choice((0, 1, 7, 11, 13, 18, 21, 26, 99, -1))
    elif kind == 1:
        model.ir_version = random.choice((0, 3, 10, 99))
    elif kind == 2 and model.graph.node:
        model.graph.node.add().CopyFrom(random.choice(model.graph.node))
    elif model.graph.output:
        del model.graph.output[random.randrange(len(model.graph.output))]
