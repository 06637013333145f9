"""The homework's network helper: the method table of the seed, what each layer computes, what it refuses."""

import inspect
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from homework_path import LAYER_NORM, trt_helper

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import ArgumentError, GraphError, QontextError, ShapeError

LOGGER = logging.getLogger("tests.homework")
NAMED = ["layer_name", "precision"]
METHODS = {
    "set_layer_name": ["layer", "name"],
    "check_trt_layer": ["trt_layer"],
    "layer_post_process": ["trt_layer", "layer_name", "precision"],
    "addInput": ["name", "dtype", "shape"],
    "markOutput": ["x"],
    "addEmbedding": ["indices", "weight", *NAMED],
    "addGELU": ["x", *NAMED],
    "addLayerNorm": ["x", "gamma", "beta", *NAMED],
    "addLinear": ["x", "weight", "bias", *NAMED],
    "addReLU": ["layer", "x", *NAMED],
    "addSoftmax": ["x", "dim", *NAMED],
    "addLog": ["x", *NAMED],
    "addAdd": ["a", "b", *NAMED],
    "addScale": ["x", "scale", *NAMED],
    "addMatMul": ["a", "b", "layer_name"],
    "addConstant": ["w", "layer_name"],
    "addShuffle": ["x", "first_transpose", "reshape_dims", "second_transpose", "layer_name"],
}


def array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def helper(plugins=()):
    return trt_helper.TrtNetworkHelper(qx.Network("under_test", plugins=plugins), list(plugins), LOGGER)


def run(net, inputs, plugins=()):
    model = qx.Model("under_test", net.network.graph, net.network.ledger())
    (out,) = qx.build(model, tune=False, plugins=plugins).run(inputs).values()
    return torch.from_numpy(out)


def test_methods_and_arguments_are_those_of_the_homework():
    for name, arguments in METHODS.items():
        found = inspect.signature(getattr(trt_helper.TrtNetworkHelper, name))
        assert list(found.parameters) == ["self", *arguments], name
    made = inspect.signature(trt_helper.TrtNetworkHelper)
    assert list(made.parameters) == ["network", "plugin_registry", "logger"]
    assert list(inspect.signature(trt_helper.InferHelper).parameters)[:2] == ["plan_name", "trt_logger"]
    assert list(inspect.signature(trt_helper.InferHelper.infer).parameters) == ["self", "inputs"]


X, GAMMA, BETA = array(2, 3, 8), array(8, seed=1), array(8, seed=2)
W, BIAS = array(5, 8, seed=3), array(5, seed=4)
T = torch.from_numpy
LAYERS = {
    "gelu": (lambda n, x: n.addGELU(x), F.gelu(T(X), approximate="tanh")),
    "erf gelu": (lambda n, x: n.addErfGELU(x), F.gelu(T(X))),
    "layer norm": (lambda n, x: n.addLayerNorm(x, GAMMA, BETA), F.layer_norm(T(X), (8,), T(GAMMA), T(BETA), 1e-12)),
    "linear": (lambda n, x: n.addLinear(x, W, BIAS), F.linear(T(X), T(W), T(BIAS))),
    "linear without bias": (lambda n, x: n.addLinear(x, W, None), F.linear(T(X), T(W))),
    "relu": (lambda n, x: n.addReLU(None, x), F.relu(T(X))),
    "softmax": (lambda n, x: n.addSoftmax(x), T(X).softmax(-1)),
    "softmax over the middle": (lambda n, x: n.addSoftmax(x, 1), T(X).softmax(1)),
    "log": (lambda n, x: n.addLog(n.addMatMul(x, n.addShuffle(x, None, None, (0, 2, 1)))), None),
    "add": (lambda n, x: n.addAdd(x, n.addConstant(GAMMA)), T(X) + T(GAMMA)),
    "scale": (lambda n, x: n.addScale(x, 0.25), T(X) * 0.25),
    "matmul": (lambda n, x: n.addMatMul(x, n.addConstant(W.T.copy())), T(X) @ T(W).T),
    "shuffle": (
        lambda n, x: n.addShuffle(x, (0, 2, 1), (0, 4, -1, 3), (0, 3, 1, 2)),
        T(X).permute(0, 2, 1).reshape(2, 4, 2, 3).permute(0, 3, 1, 2),
    ),
}


@pytest.mark.parametrize(("add", "expected"), LAYERS.values(), ids=LAYERS)
def test_each_layer_computes_what_it_says(add, expected):
    net = helper()
    net.markOutput(add(net, net.addInput("x", np.float32, (-1, 3, 8))))
    got = run(net, {"x": X})
    if expected is None:
        expected = torch.log(T(X) @ T(X).mT)
        got, expected = got.nan_to_num(), expected.nan_to_num()  # the logarithm of a negative product
    assert relative_rms(got, expected) < BY_NAME["float32"].tolerance


def test_embedding_and_named_layers():
    net = helper()
    ids = net.addInput("ids", "int32", (-1, -1))
    table = array(9, 4)
    y = net.addEmbedding(ids, table, "words")
    assert [str(d) for d in net.network.shape(y)] == ["B", "S", "4"]
    z = net.addScale(y, 2.0, "twice")
    assert [node.name for node in net.network.graph] == ["0_words", "1_twice"]
    assert (y.name, z.name) == ("0_words", "1_twice")
    net.markOutput(z)
    assert torch.equal(run(net, {"ids": [[1, 8], [0, 3]]}), 2 * T(table)[torch.tensor([[1, 8], [0, 3]])])


def test_layer_norm_comes_from_the_registry_when_it_is_there():
    net = helper([LAYER_NORM])
    x = net.addInput("x", torch.float32, (-1, -1, 8))
    net.markOutput(net.addLayerNorm(x, GAMMA, BETA))
    assert [node.op_type for node in net.network.graph] == ["LayerNormPlugin"]
    want = F.layer_norm(T(X), (8,), T(GAMMA), T(BETA), 1e-12)
    assert relative_rms(run(net, {"x": X}, [LAYER_NORM]), want) < BY_NAME["float32"].tolerance


def test_layers_are_logged_with_their_shapes(caplog):
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        net = helper()
        net.addSoftmax(net.addInput("x", np.float32, (-1, -1, 8)), -1, "weights")
    assert any("0_weights" in line and "float32[B, S, 8]" in line for line in caplog.messages)


def test_what_a_layer_cannot_take_is_named():
    net = helper()
    x = net.addInput("x", np.float32, (-1, -1, 8))
    with pytest.raises(
        ShapeError, match=r"'weight' has shape \[8, 5\]; allowed: \[M K\] axis K is 8 elsewhere and 5 here"
    ):
        net.addLinear(x, W.T.copy(), BIAS)
    with pytest.raises(ShapeError, match=r"'bias' has shape \[8\]"):
        net.addLinear(x, W, GAMMA)
    with pytest.raises(GraphError, match=r"MatMul.*does not fit its inputs x\[B, S, 8\]"):
        net.addMatMul(x, net.addConstant(W))
    with pytest.raises(QontextError, match="Reshape"):
        net.addShuffle(x, None, (0, 0, 3, 5), None)
    with pytest.raises(ArgumentError, match="'x' is not computed by layer '0_scaled'"):
        net.addReLU(net.addScale(x, 2.0, "scaled").producer(), x)
    with pytest.raises(ArgumentError, match="precision 'fp16' was asked for one layer"):
        net.addSoftmax(x, precision="fp16")
    assert net.addSoftmax(x, precision="fp32") is not None
    with pytest.raises(ArgumentError, match="the type 'half precision' is unknown"):
        net.addInput("y", "half precision", (-1,))
    with pytest.raises(ArgumentError, match="layer to be called 'nothing' was never made"):
        net.set_layer_name(None, "nothing")
