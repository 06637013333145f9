"""Builds an engine with the flags of demo/BERT's builder.py: batches stay padded.

python builder.py -c demo-bert -b 1 -b 8 -s 64 -o demo.qx
python builder.py -c demo-bert -i -imh -j train-v1.1.json -n 100 -p scales.json -s 64 -o demo_int8.qx
python builder.py -x model.onnx -c folder/with/tokenizer -s 384 -tcf timings.json -o bert.qx
"""

import argparse
import sys

import flags
from calibration import calibrated, quantisation
from sources import import_source
from timing_cache import read_tuner, write_records

import qontext as qx
from qontext.errors import ArgumentError


def build(options: argparse.Namespace, packed: bool) -> qx.Engine:
    """The engine that the flags ask for. Raises QontextError for flags that cannot be honoured."""
    for note in flags.check(options):
        print(note, file=sys.stderr)
    batch, length = _largest("-b", options.batch_size, 1), _largest("-s", options.sequence_length, 128)
    tuner = read_tuner(options.timing_cache_file)
    model = import_source(options)
    limit = model.config.get("max_length")
    if limit is not None and length > limit:
        raise ArgumentError(f"-s {length}: {model.name} has positions for at most {limit} tokens")
    int8 = flags.precision_of(options) == "int8"
    engine = qx.build(
        model,
        flags.precision_of(options),
        calibration=calibrated(options, model) if int8 else None,
        quantisation=quantisation(options) if int8 else None,
        max_tokens=batch * length,
        max_length=length,
        packing=packed,
        tuner=tuner,
        log=print if options.verbose else lambda line: None,
    )
    if packed and not engine.compiled.packing.packed:
        report = engine.compiled.packing
        reasons = [report.reason, *(node.reason for node in report.nodes)]
        why = next((r for r in reasons if r), "no operator could be packed")
        raise ArgumentError(f"padding cannot be removed from {model.name}: {why}; build with builder.py")
    if options.timing_cache_file is not None:
        write_records(options.timing_cache_file, tuner)
        print(f"{options.timing_cache_file}: {tuner.timed} calls timed anew")
    return engine


def _largest(flag: str, given: int | list[int] | None, default: int) -> int:
    sizes = given if isinstance(given, list) else [default if given is None else given]
    wrong = [size for size in sizes if size < 1]
    if wrong:
        raise ArgumentError(f"{flag} {wrong[0]}: it must be at least 1")
    return max(sizes)


def main(argv: list[str] | None = None, packed: bool = False) -> int:
    """Parses, builds, saves."""
    options = flags.parser(packed).parse_args(argv)
    try:
        engine = build(options, packed)
        engine.save(options.output)
    except qx.errors.QontextError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings, steps = engine.settings, len(engine.compiled.programs["encode"].steps)
    print(
        f"{options.output}: {steps} steps, {engine.precision}, up to {settings.max_length} tokens a sequence and "
        f"{settings.max_tokens} tokens a batch, {'packed' if packed else 'padded'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
