"""The public Engine: build, run, save, load."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch

from . import native
from .builder.compile import Compiled, Settings, check_settings, compile_model
from .builder.engine_file import Facts, read_engine, write_engine
from .builder.precision import EIGHT_BITS
from .builder.tune import Tuner
from .calibration.cache import Calibration, model_hash
from .calibration.calibrate import calibrate as run_calibration
from .calibration.calibrate import check_method, collected
from .calibration.quantise import QuantOptions, guarded_engine
from .errors import ArgumentError, InputError
from .fusion.rule import Rule
from .generation.beam import Beams
from .generation.generate import generate
from .generation.loop import USUAL_PAGE, Generator
from .generation.loop import Settings as Generation
from .generation.ranges import largest_in_caches
from .generation.sampler import Sampling
from .generation.text import Text
from .graph.dims import Dim
from .graph.model import InputRule, Model
from .graph.text import type_text
from .ops.declare import Op
from .ops.device import device_of
from .quant.caches import KvCache, in_eight_bits
from .quant.recipe import Recipe
from .runtime.executor import Observe
from .runtime.executors import executor_for
from .runtime.gpu_executor import GpuExecutor
from .runtime.inputs import Inputs, check_right_padded
from .runtime.magnitudes import near_overflow
from .runtime.outputs import at, to_numpy
from .runtime.packed import as_one_row, token_outputs
from .runtime.profile import sample_run_inputs


class Engine:
    """A built model.

    Attributes:
        name: of the model.
        task: what it was trained for, or None.
        config: facts for tasks (labels, pooling, limits).
        tokenizer: text of tokenizer.json, or None.
    """

    def __init__(
        self,
        compiled: Compiled,
        name: str,
        task: str | None,
        config: Mapping[str, Any],
        tokenizer: str | None,
        inputs: Mapping[str, InputRule],
    ):
        self.compiled = compiled
        self.name = name
        self.task = task
        self.config = dict(config)
        self.tokenizer = tokenizer
        self.input_rules = dict(inputs)
        graphs = compiled.settings.graphs
        encode = compiled.programs["encode"]
        most = compiled.settings.max_tokens
        self._inputs = Inputs(encode, self.input_rules, most, self.max_length)
        self._row_inputs = Inputs(encode, self.input_rules, most, None)
        self._executors = {key: executor_for(program, graphs) for key, program in compiled.programs.items()}
        native.steady_allocator()
        self._generator: Generator | None = None

    @property
    def settings(self) -> Settings:
        return self.compiled.settings

    @property
    def precision(self) -> str:
        return self.settings.precision

    @property
    def device(self) -> str:
        return self.settings.device

    @property
    def max_length(self) -> int | None:
        """Longest sequence in tokens, None where only `max_tokens` limits it."""
        return self.settings.max_length or self.config.get("max_length")

    @property
    def input_names(self) -> list[str]:
        return list(self.compiled.programs["encode"].inputs)

    @property
    def output_names(self) -> list[str]:
        return list(self.compiled.programs["encode"].outputs)

    def run(
        self,
        inputs: Mapping[str, Any],
        observe: Observe | None = None,
        output_device: str | torch.device | None = None,
        lengths: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Runs the model once on a batch of any size below the limits, padded or packed.

        Args:
            inputs: arrays by input name; numpy arrays, torch tensors or nested lists. Ids and masks are `[B, S]`.
            observe: called with (step, outputs) after every step; the tensors are only valid during the call.
            output_device: where the outputs go ("cpu", "cuda"): by default to the device of the first tensor that came
                in, else to the host. On a GPU they are ready when the current stream has come there.
            lengths: of sequences that are packed one after the other: inputs are then `[T]`, without a mask, and
                outputs with a row a token are `[T, ...]`. Nothing is read back from a GPU.
        Returns:
            Outputs by name in declared order: torch tensors when a torch tensor came in or a device was named, else
            numpy arrays. They belong to the caller. Padded positions are zero.
        Raises:
            InputError, ShapeError, DTypeError: naming the input, what it got and what was expected.
            DeviceError: the GPU has too little memory for this batch, or reports a fault.
        """
        if self.compiled.states and "attention_mask" in inputs:
            check_right_padded(inputs["attention_mask"])
        if lengths is not None:
            outputs = self._packed(inputs, lengths)
            return self._handed_out(outputs, inputs, output_device)
        prepared = self._inputs.prepare(inputs)
        if any(t.numel() == 0 for t in prepared.tensors.values()):
            outputs = self._nothing(prepared.tensors)
        else:
            outputs = self._executors["encode"].run(
                prepared.tensors, observe, prepared.check, prepared.ones, prepared.fixed
            )
        return self._handed_out(outputs, inputs, output_device)

    @property
    def generator(self) -> Generator:
        """What generates: the loop over the programs "prefill" and "decode" with its caches.

        Raises ArgumentError for a model that is no decoder.
        """
        if not self.compiled.states:
            raise ArgumentError(f"generate: {self.name} is no decoder (task {self.task or 'unknown'})")
        if self._generator is None:
            programs = {name: e for name, e in self._executors.items() if name != "encode"}
            vocabulary = int(self.config["vocabulary"])
            self._generator = Generator(programs, self.compiled.states, self.max_length, vocabulary)
        return self._generator

    def generate(
        self,
        prompts: Any,
        max_new_tokens: int = 64,
        *,
        ignore_eos: bool = False,
        stream: bool = False,
        tokens_per_page: int = USUAL_PAGE,
        pages: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        beams: int = 1,
        length_penalty: float = 1.0,
    ) -> Any:
        """Continues prompts: with the most likely token at each step, with drawn ones, or by beam search.

        Args:
            prompts: one prompt or a list, of any lengths: text, or token ids.
            max_new_tokens: at most, of each prompt.
            ignore_eos: go on behind end-of-sequence tokens.
            stream: yield (number of the prompt, token or piece of text) as they come, instead of the whole.
            tokens_per_page: of the cache; 0 makes it contiguous.
            pages: of the cache; 0 takes as many as the prompts can need.
            temperature: over 0 draws tokens, from logits divided by it; 0 takes the most likely one.
            top_k, top_p: draw from so many of the most likely tokens; from the fewest whose probabilities reach top_p.
            seed: of the draws; those of a prompt depend on the seed and the prompt's number alone.
            beams: over 1 searches with so many beams and gives the best result, scored by the sum of its log
                probabilities over its length to the power of `length_penalty`.
        Returns:
            What was generated, in the form of the prompts: text for text, ids for ids; a list for a list. An
            end-of-sequence token is not part of it.
        Raises:
            ArgumentError: the model is no decoder.
            InputError: prompts that are empty, too long, or text without a tokenizer; settings that cannot be used or
                exclude each other; pages that run out.
        """
        ends = frozenset() if ignore_eos else frozenset(self.config.get("end_token_ids", ()))
        settings = Generation(max_new_tokens, ends, tokens_per_page, pages)
        sampling = Sampling(temperature, top_k, top_p, seed)
        text = Text(self.tokenizer)
        return generate(self.generator, text, prompts, settings, sampling, Beams(beams, length_penalty), stream)

    def _packed(self, inputs: Mapping[str, Any], lengths: Sequence[int]) -> dict[str, torch.Tensor]:
        """Outputs of a packed batch."""
        program = self.compiled.programs["encode"]
        row, found = as_one_row(program, self.input_rules, inputs, lengths, self.max_length)
        prepared = self._row_inputs.prepare(row)
        if not len(found.token_index):
            raise InputError("run: packed input without a token")
        outputs = self._executors["encode"].run_packed(prepared.tensors, found, prepared.check)
        packed = token_outputs(program)
        return {name: tensor.squeeze(0) if name in packed else tensor for name, tensor in outputs.items()}

    @staticmethod
    def _handed_out(
        outputs: Mapping[str, torch.Tensor], inputs: Mapping[str, Any], output_device: str | torch.device | None
    ) -> dict[str, Any]:
        """The outputs where the caller wants them, as torch tensors or arrays."""
        first = next((x for x in inputs.values() if isinstance(x, torch.Tensor)), None)
        if output_device is None and first is None:
            return {name: to_numpy(tensor) for name, tensor in at(outputs, torch.device("cpu")).items()}
        wanted = output_device if output_device is not None else first.device if first is not None else "cpu"
        return at(outputs, torch.device(wanted))

    def warm_up(self, shapes: Sequence[tuple[int, int]]) -> None:
        """Prepares for batches of (sequences, tokens a sequence): compiles kernels and captures graphs of a GPU.

        A ragged batch runs fast from the start when one with as many tokens, sequences and as long a sequence (each
        rounded up, see `runtime/buckets.py`) was warmed up. Raises InputError for shapes over the limits.
        """
        program = self.compiled.programs["encode"]
        for batch, length in sorted(shapes, key=lambda s: -s[0] * s[1]):  # the largest first: one arena serves all
            made = sample_run_inputs(program, self.input_rules, batch, length)
            for _ in range(2):
                self.run(made)

    @property
    def graphs(self) -> dict[str, Any]:
        """CUDA graphs: how many steps they hold, `captured` rows, and the `reason` when a GPU engine has none.

        Those of "decode" where the model is a decoder.
        """
        executor = self._executors["decode" if self.compiled.states else "encode"]
        if not isinstance(executor, GpuExecutor):
            return {"reason": "", "steps": 0, "captured": []}
        held = 0 if executor.graphs.reason else executor.parts.core
        return {"reason": executor.graphs.reason, "steps": held, "captured": executor.graphs.rows()}

    def _nothing(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs of an empty batch: their shapes with the sizes that were given, without a run."""
        program = self.compiled.programs["encode"]
        sizes: dict[str, int] = {}
        for name, tensor in tensors.items():
            for dim, size in zip(program.input_shapes[name], tensor.shape, strict=True):
                if isinstance(dim, Dim):
                    sizes[dim.symbols[0]] = size
        outputs = {}
        for name, slot in program.outputs.items():
            operand = program.operands[slot]
            assert operand is not None
            shape = [d.value(sizes) if isinstance(d, Dim) else d or 0 for d in operand.shape or ()]
            outputs[name] = torch.zeros(shape, dtype=operand.type.torch)
        return outputs

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.qx` file: to a temporary name, then renamed, so that no half file is ever seen.

        Raises EngineFileError when the folder cannot be written.
        """
        facts = Facts(self.name, self.task, self.config, self.tokenizer, self.input_rules)
        write_engine(path, self.compiled, facts)

    def save_onnx(self, path: str | os.PathLike[str]) -> None:
        """Writes the fused model as ONNX (before packing and lowering), our operators with their function bodies.

        Any ONNX viewer opens it and ONNX Runtime runs it. Raises ArgumentError for an engine loaded from a file.
        """
        from .graph.onnx_file import write_onnx
        from .ops.body import IR_VERSION, with_bodies

        if self.compiled.fused is None:
            raise ArgumentError(
                "save_onnx: an engine loaded from a .qx file holds the packed program only; build it anew"
            )
        model = ir.Model(self.compiled.fused, ir_version=IR_VERSION, producer_name="qontext")
        write_onnx(with_bodies(model, self.compiled.plugins), path)

    def __str__(self) -> str:
        lines = [f"engine {self.name}  ({self.precision}, {self.device}, task {self.task or 'unknown'})"]
        if self.device != "cpu":
            lines.append(graphs_line(self.graphs))
        for key, program in self.compiled.programs.items():
            arguments = ", ".join(type_text(v) + " " + str(v.name) for v in program.graph.inputs)
            lines.append(f"program {key}({arguments})")
            width = max((len(s.op) for s in program.steps), default=0)
            kernels = max((len(s.kernels) for s in program.steps), default=0)
            for i, step in enumerate(program.steps):
                shown = ", ".join(f"{o.dtype}{_shape(o.shape)}" for o in step.call.outputs if o is not None)
                lines.append(f"  {i:3d}  {step.op:{width}}  {step.kernels:{kernels}}  -> {shown}  {step.origin}")
            results = ", ".join(f"{v.name}: {type_text(v)}" for v in program.graph.outputs)
            lines.append(f"return {results}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        steps = sum(len(p.steps) for p in self.compiled.programs.values())
        return f"<qontext.Engine {self.name!r}: {steps} steps, {self.precision} on {self.device}>"


def build(
    model: Model | str | os.PathLike[str],
    precision: str = "fp32",
    device: str = "cpu",
    *,
    max_tokens: int = 131_072,
    max_length: int | None = None,
    packing: bool = True,
    tune: bool = True,
    graphs: bool = True,
    keep: Sequence[str] = (),
    calibration: Calibration | str | os.PathLike[str] | Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
    quantisation: QuantOptions | None = None,
    kv_cache: KvCache | str | None = None,
    plugins: Sequence[Op] = (),
    rules: Sequence[Rule] = (),
    tuner: Tuner | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Engine:
    """Builds an engine: fuses, removes padding, lowers the precision, chooses kernels, lays out memory.

    Args:
        model: what `import_model` returned, or anything that `import_model` takes.
        precision: "fp32", "bf16", "fp16", or "int8": linear layers multiply bytes, with a scale for every token that is
            found at run time; the rest is in bf16 where the processor multiplies it, else in fp32. On a GPU the rest is
            in fp16, and there is "fp8": layers multiply 8-bit floats (e4m3).
        device: "cpu", "cuda", or "cuda:1" for the second GPU.
        max_tokens: largest batch x length of one run.
        max_length: longest sequence; the model's own limit when left out.
        packing: remove padding where the model allows it.
        tune: time rival kernels on this machine (seconds); False takes the first that can run.
        graphs: on a GPU, capture CUDA graphs over bucketed sizes, each on the first batch that needs it.
        keep: layers that stay in float32 whatever the precision (with int8 and fp8: in the type of the rest), by name:
            a module of the model or a node; `*` stands for anything.
        calibration: inputs as for `run`, one batch or several. A build in fp16 runs them in float32 first, and layers
            whose results come near the largest number of fp16 (or go beyond) stay in float32. A build in int8 searches
            smoothing factors on them and compares its results with those in float32; one in fp8 compares, and on a GPU
            both take static scales from them where no operator sees a whole row. Also what `calibrate` returned, or the
            path of its file: static scales are taken from it.
        quantisation: how int8 and fp8 are made: static scales or those found at run time, smoothing, the largest error.
        kv_cache: of decoders: caches in eight bits, a `KvCache`; "fp8" stands for KvCache("fp8").
        plugins: operators of yours that the model uses.
        rules: fusion rules of yours. Those marked `early` run on the normal form, before our rules join operators;
            the others after them.
        tuner: timings from an earlier build, to save time.
        log: called with one line for every fusion and every phase.
    Raises:
        QontextError: a subclass that says what was wrong.
    """
    if not isinstance(model, Model):
        from .importers import import_model

        model = import_model(model, plugins=plugins)
    rest = rest_of(precision, device)
    settings = Settings(precision, device, max_tokens, max_length, packing, tune, graphs, tuple(keep), rest)

    def made(how: Settings, recipe: Recipe | None = None, overflowing: Mapping[str, float] | None = None) -> Engine:
        told = log if how is settings else _silent
        compiled = compile_model(model, how, plugins, rules, tuner, told, overflowing, recipe)
        return Engine(compiled, model.name, model.task, model.config, model.tokenizer, model.inputs)

    def largest(prompts: Sequence[Any]) -> dict[str, torch.Tensor]:
        measured = made(replace(settings, precision="fp32", rest="", tune=False, graphs=False, keep=()))
        text = Text(measured.tokenizer)
        return largest_in_caches(measured.generator, [text.ids(p) for p in prompts])

    if kv_cache is not None:
        check_settings(settings)
        model = in_eight_bits(model, kv_cache, largest, log)
    if precision in EIGHT_BITS:
        check_settings(settings)
        return guarded_engine(
            made, settings, lambda: model_hash(model), calibration, quantisation or QuantOptions(), log
        )
    if quantisation is not None or isinstance(calibration, (Calibration, str, os.PathLike)):
        what = "quantisation=" if quantisation is not None else "a calibration of static scales"
        raise ArgumentError(f"build: {what} goes with precision 'int8' or 'fp8', the precision is {precision!r}")
    overflowing = None
    if calibration is not None and precision == "fp16":
        measured = made(replace(settings, precision="fp32", tune=False, graphs=False, keep=()))
        batches = [calibration] if isinstance(calibration, Mapping) else list(calibration)
        overflowing = near_overflow(lambda batch, tap: measured.run(batch, tap), batches, torch.float16)
    return made(settings, None, overflowing)


def _silent(text: str) -> None:
    """A log that nobody reads: of engines that are made to be measured only."""


def calibrate(
    model: Model | str | os.PathLike[str],
    samples: Callable[[], Mapping[str, Any] | Iterable[Mapping[str, Any]]],
    method: str = "percentile",
    percentile: float = 99.99,
    *,
    cache: str | os.PathLike[str] | None = None,
    count: int | None = None,
    smooth: bool = True,
    plugins: Sequence[Op] = (),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Calibration:
    """Finds static scales (and smoothing factors) of a model's linear layers on samples.

    Args:
        model: as for `build`.
        samples: gives batches of inputs as for `run`; not called when the cache holds the answer.
        method: "min-max", "percentile", "entropy" or "mse".
        percentile: of "percentile": how much of the values the range holds.
        cache: a JSON file: read when it is there, else written.
        count: of sequences to take; all when left out.
        smooth: search smoothing factors, which takes a second pass over the samples.
        progress: called with (sequences done, sequences in all).
    Raises:
        CalibrationError: no samples, NaN in them, or a cache of another model or method.
        ArgumentError: a method that does not exist.
    """
    if not isinstance(model, Model):
        from .importers import import_model

        model = import_model(model, plugins=plugins)
    check_method(method, percentile)
    if count is not None and count < 1:
        raise ArgumentError(f"calibrate: count is {count}, it must be at least 1")
    hashed = model_hash(model)
    if cache is not None and os.path.exists(cache):
        held = Calibration.load(cache)
        held.check(hashed, method, percentile)
        return held
    batches = collected(samples(), count)
    engine = build(model, tune=False, plugins=plugins)
    found = run_calibration(engine, batches, hashed, method, percentile, smooth, progress=progress)
    if cache is not None:
        found.save(cache)
    return found


def rest_of(precision: str, device: str) -> str:
    """The type of what stays in floats in an engine of eight bits: fp16 on a GPU, bf16 where this processor multiplies
    it, else fp32."""
    if precision not in EIGHT_BITS:
        return ""
    if device != "cpu":
        return "fp16"
    return "bf16" if device_of("cpu").capability & {"avx512_bf16", "amx_bf16"} else "fp32"


def load(
    path: str | os.PathLike[str],
    *,
    plugins: Sequence[Op] = (),
    device: str | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Engine:
    """Loads a `.qx` file after checking every byte of it.

    Args:
        path: the file.
        plugins: the operators that the engine was built with, same names and versions.
        device: another one than the engine was built for: the program is the same on all, its kernels are chosen anew.
        log: called with a line when kernels have to be chosen and timed anew because the machine is another.
    Raises:
        EngineFileError: truncated, damaged, foreign or newer files, a machine without the needed instruction set.
        PluginError: a missing plugin, or one of another version.
        DeviceError: the engine's GPU is missing, too old, or driven by software that does not fit.
    """
    compiled, facts = read_engine(path, plugins, device, log)
    return Engine(compiled, facts.name, facts.task, facts.config, facts.tokenizer, facts.inputs)


def graphs_line(graphs: Mapping[str, Any]) -> str:
    """One line about the CUDA graphs of an engine."""
    if graphs["reason"]:
        return f"no CUDA graphs: {graphs['reason']}"
    captured = "; ".join(f"{g['sizes']} (replayed {g['replays']} times)" for g in graphs["captured"])
    return f"CUDA graphs of {graphs['steps']} steps: {captured or 'none captured yet'}"


def _shape(shape: Sequence[object] | None) -> str:
    return "[?]" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
