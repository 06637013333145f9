"""The homework's wrapper of a network, on qontext: same class, methods and arguments.

`TrtNetworkHelper` adds layers to a `qontext.Network`. Each layer gets its name and has its shape checked when it is
added. A "layer" is the node of the graph, a "tensor" the value it computes.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

import qontext as qx
from qontext.dtypes import by_name, from_torch
from qontext.errors import ArgumentError, GraphError
from qontext.graph.ledger import origin_of, set_origin
from qontext.plugins import Op

Array = np.ndarray
LAYER_NORM_PLUGIN = "LayerNormPlugin"
FREE_AXES = ("B", "S")


class TrtNetworkHelper:
    """Adds layers to a network.

    Args:
        network: the network under construction.
        plugin_registry: operators of yours; `addLayerNorm` takes "LayerNormPlugin" from it when it is there.
        logger: told the name and shape of every layer, at level DEBUG.
    """

    epsilon = 1e-12

    def __init__(self, network: qx.Network, plugin_registry: Sequence[Op], logger: logging.Logger):
        self.network = network
        self.plugin_registry = {op.name: op for op in plugin_registry}
        self.logger = logger
        self.layer_id = 0
        self._weights: dict[tuple[int, tuple[int, ...]], tuple[Array, ir.Value]] = {}

    # -- every layer -------------------------------------------------------------------------------------------

    def set_layer_name(self, layer: ir.Node, name: str) -> None:
        """Names a layer, with its number in front: "12_softmax". Reports call it by the name without the number."""
        if layer is None:
            raise ArgumentError(f"the layer to be called {name!r} was never made")
        path = origin_of(layer)
        base = layer.name or ""
        set_origin(layer, name if path == base else f"{path}.{name}")
        layer.name = f"{self.layer_id}_{origin_of(layer)}"
        self.layer_id += 1
        for i, value in enumerate(layer.outputs):
            if value.name:
                value.name = layer.name if len(layer.outputs) == 1 else f"{layer.name}:{i}"

    def check_trt_layer(self, trt_layer: ir.Node) -> None:
        """Raises GraphError unless every output of the layer has a type and a shape."""
        for value in trt_layer.outputs:
            if value.name:
                self.network.shape(value)
                if value.dtype is None:
                    raise GraphError(f"layer {trt_layer.name!r}: the type of {value.name!r} is unknown")

    def layer_post_process(self, trt_layer: ir.Node, layer_name: str | None, precision: object) -> None:
        """Names and checks a new layer, and logs its shape.

        `precision` may be None or float32: qontext sets the precision of an engine as a whole (`build(precision=...)`).
        """
        if precision is not None and _dtype_name(precision) != "float32":
            raise ArgumentError(
                f"layer {layer_name!r}: precision {precision!r} was asked for one layer; qontext sets it for the whole "
                "engine, build(model, precision='fp16'), and keeps statistics of norms and softmax in float32 itself"
            )
        self.set_layer_name(trt_layer, layer_name or trt_layer.op_type)
        self.check_trt_layer(trt_layer)
        shown = ", ".join(self.network.describe(v) for v in trt_layer.outputs if v.name)
        self.logger.debug("%-40s %-10s %s", trt_layer.name, trt_layer.op_type, shown)

    def _done(self, value: ir.Value, layer_name: str | None, precision: object = None) -> ir.Value:
        layer = value.producer()
        assert layer is not None
        self.layer_post_process(layer, layer_name, precision)
        return value

    def _weight(self, array: Array, shape: tuple[int, ...] | None = None, name: str = "weight") -> ir.Value:
        """The parameter of an array; one array used twice (a tied decoder) is one parameter."""
        shape = tuple(array.shape) if shape is None else shape
        key = (id(array), shape)
        if key not in self._weights:
            unique = f"{name}_{len(self._weights)}"
            self._weights[key] = (array, self.network.parameter(unique, array.reshape(shape)))
        return self._weights[key][1]

    # -- borders -----------------------------------------------------------------------------------------------

    def addInput(self, name: str, dtype: object, shape: Sequence[int]) -> ir.Value:
        """An input; -1 leaves an axis free (batch and length, in this order, are the same in all inputs)."""
        dims = [_free(name, axis) if size == -1 else size for axis, size in enumerate(shape)]
        value = self.network.input(name, _dtype_name(dtype), dims)
        self.logger.debug("%-40s %-10s %s", name, "input", self.network.describe(value))
        return value

    def markOutput(self, x: ir.Value) -> None:
        """Makes a tensor an output, under its own name."""
        self.network.output(x)
        self.logger.debug("%-40s %-10s %s", x.name, "output", self.network.describe(x))

    # -- layers ------------------------------------------------------------------------------------------------

    def addEmbedding(
        self, indices: ir.Value, weight: Array, layer_name: str | None = None, precision: object = None
    ) -> ir.Value:
        """Rows of `weight` `[V, E]` for indices of any shape."""
        return self._done(self.network.op("Gather", self._weight(weight), indices, axis=0), layer_name, precision)

    def addGELU(self, x: ir.Value, layer_name: str | None = None, precision: object = None) -> ir.Value:
        """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) out of nine elementwise layers, which `build` joins again."""
        name, op = layer_name or "gelu", self.network.op
        square = self._done(op("Mul", x, x), f"{name}.square", precision)
        cube = self._done(op("Mul", square, x), f"{name}.cube", precision)
        scaled = self._done(op("Mul", cube, np.float32(0.044715)), f"{name}.scaled_cube", precision)
        total = self._done(op("Add", x, scaled), f"{name}.sum", precision)
        inner = self._done(op("Mul", total, np.float32(np.sqrt(2 / np.pi))), f"{name}.inner", precision)
        bent = self._done(op("Tanh", inner), f"{name}.tanh", precision)
        raised = self._done(op("Add", bent, np.float32(1.0)), f"{name}.one_more", precision)
        half = self._done(op("Mul", raised, np.float32(0.5)), f"{name}.cdf", precision)
        return self._done(op("Mul", x, half), name, precision)

    def addErfGELU(self, x: ir.Value, layer_name: str | None = None, precision: object = None) -> ir.Value:
        """The exact x (1 + erf(x / sqrt 2)) / 2, with which most BERT models are trained, out of five layers."""
        name, op = layer_name or "gelu", self.network.op
        inner = self._done(op("Mul", x, np.float32(1 / np.sqrt(2))), f"{name}.inner", precision)
        bent = self._done(op("Erf", inner), f"{name}.erf", precision)
        raised = self._done(op("Add", bent, np.float32(1.0)), f"{name}.one_more", precision)
        half = self._done(op("Mul", raised, np.float32(0.5)), f"{name}.cdf", precision)
        return self._done(op("Mul", x, half), name, precision)

    def addLayerNorm(
        self, x: ir.Value, gamma: Array, beta: Array, layer_name: str | None = None, precision: object = None
    ) -> ir.Value:
        """LayerNorm over the last axis: the plugin of the registry when it has one, else the operator of qontext."""
        plugin = self.plugin_registry.get(LAYER_NORM_PLUGIN)
        width = gamma.size
        if plugin is not None:
            row = (1, 1, width)
            y = plugin(x, self._weight(gamma, row), self._weight(beta, row), epsilon=self.epsilon)
        else:
            vector = (width,)
            y = self.network.layer_norm(
                x, self._weight(gamma, vector), self._weight(beta, vector), epsilon=self.epsilon
            )
        return self._done(y, layer_name, precision)

    def addLinear(
        self, x: ir.Value, weight: Array, bias: Array | None, layer_name: str | None = None, precision: object = None
    ) -> ir.Value:
        """x W^T + bias; `weight` is `[M, K]`, as PyTorch keeps it."""
        given = None if bias is None else self._weight(bias)
        return self._done(self.network.linear(x, self._weight(weight), given), layer_name, precision)

    def addReLU(
        self, layer: ir.Node | None, x: ir.Value, layer_name: str | None = None, precision: object = None
    ) -> ir.Value:
        """max(x, 0). `layer`, when given, must be the layer that computes x."""
        if layer is not None and x.producer() is not layer:
            raise ArgumentError(f"addReLU: {x.name!r} is not computed by layer {layer.name!r}")
        return self._done(self.network.op("Relu", x), layer_name, precision)

    def addSoftmax(
        self, x: ir.Value, dim: int = -1, layer_name: str | None = None, precision: object = None
    ) -> ir.Value:
        """Softmax over one axis."""
        return self._done(self.network.op("Softmax", x, axis=dim), layer_name, precision)

    def addLog(self, x: ir.Value, layer_name: str | None = None, precision: object = None) -> ir.Value:
        """The natural logarithm."""
        return self._done(self.network.op("Log", x), layer_name, precision)

    def addAdd(self, a: ir.Value, b: ir.Value, layer_name: str | None = None, precision: object = None) -> ir.Value:
        """a + b, with broadcasting."""
        return self._done(self.network.op("Add", a, b), layer_name, precision)

    def addScale(self, x: ir.Value, scale: float, layer_name: str | None = None, precision: object = None) -> ir.Value:
        """x times one number; x of any rank (TensorRT wants at least three axes)."""
        return self._done(self.network.op("Mul", x, np.float32(scale)), layer_name, precision)

    def addMatMul(self, a: ir.Value, b: ir.Value, layer_name: str | None = None) -> ir.Value:
        """The product of matrices in the last two axes."""
        return self._done(self.network.op("MatMul", a, b), layer_name)

    def addConstant(self, w: Array, layer_name: str | None = None) -> ir.Value:
        """A constant tensor."""
        return self._weight(w, name=layer_name or "constant")

    def addShuffle(
        self,
        x: ir.Value,
        first_transpose: Sequence[int] | None,
        reshape_dims: Sequence[int] | None,
        second_transpose: Sequence[int] | None,
        layer_name: str | None = None,
    ) -> ir.Value:
        """Transposes, reshapes and transposes again; None leaves a step out.

        In `reshape_dims`, 0 keeps the size that stands at this place and -1 takes what is left.
        """
        name = layer_name or "shuffle"
        if first_transpose is not None:
            x = self._done(self.network.op("Transpose", x, perm=list(first_transpose)), f"{name}.first")
        if reshape_dims is not None:
            target = np.array(reshape_dims, np.int64)
            x = self._done(self.network.op("Reshape", x, target), f"{name}.reshape")
        if second_transpose is not None:
            x = self._done(self.network.op("Transpose", x, perm=list(second_transpose)), name)
        return x


class InferHelper:
    """Loads an engine and runs it.

    Args:
        plan_name: the engine file.
        trt_logger: told shapes, sums and the time of each run, at level INFO.
        plugins: the operators of yours that the engine was built with.
    """

    def __init__(self, plan_name: str, trt_logger: logging.Logger, plugins: Sequence[Op] = ()):
        self.logger = trt_logger
        self.engine = qx.load(plan_name, plugins=plugins)
        self.milliseconds = float("nan")

    def infer(self, inputs: list[Array]) -> list[Array]:
        """Runs once to warm up and once timed.

        Args:
            inputs: arrays in the order of the engine's inputs; those at the end that have a default may be left out.
        Returns:
            The outputs in the engine's order; `milliseconds` holds the time of the second run.
        """
        names = self.engine.input_names
        if len(inputs) > len(names):
            raise ArgumentError(f"infer: {len(inputs)} arrays were given, the engine takes {len(names)}: {names}")
        given = dict(zip(names, inputs, strict=False))
        for name, array in given.items():
            self.logger.info("input  %-20s %s %s", name, array.dtype, list(array.shape))
        self.engine.run(given)
        start = time.perf_counter()
        outputs = self.engine.run(given)
        self.milliseconds = (time.perf_counter() - start) * 1e3
        self.logger.info("time   %.3f ms", self.milliseconds)
        for name, array in outputs.items():
            self.logger.info("output %-20s %s %s sum %.6f", name, array.dtype, list(array.shape), array.sum())
        return list(outputs.values())


def _free(name: str, axis: int) -> str:
    return FREE_AXES[axis] if axis < len(FREE_AXES) else f"{name}_{axis}"


def _dtype_name(dtype: Any) -> str:
    """The name of a type given as text, as a NumPy type or as a torch type."""
    if isinstance(dtype, torch.dtype):
        return from_torch(dtype).name
    try:
        return by_name(dtype if isinstance(dtype, str) else np.dtype(dtype).name).name
    except (KeyError, TypeError) as error:
        raise ArgumentError(f"the type {dtype!r} is unknown; give 'int32', numpy.int32 or torch.int32") from error
