"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Hugging Face folder or hub id, .onnx file, .qx engine, or demo-bert"),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Hugging Face folder or hub id, .onnx file, .qx engine, or demo-bert")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON for machines")]
Precision = Annotated[str, typer.Option("--precision", "-p", help="fp32, bf16, fp16, int8 or (on a GPU) fp8")]
Device = Annotated[str, typer.Option("--device", "-d", help="cpu, cuda, or cuda:1 for the second GPU")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="print the build log: every fusion, before and after")]
Texts = Annotated[
    list[str] | None, typer.Argument(metavar="[TEXT]...", help="texts; none reads lines from --file or stdin")
]
File = Annotated[Path | None, typer.Option("--file", "-f", help="a text file, one text a line ('-' for stdin)")]

DEMO = "demo-bert"
