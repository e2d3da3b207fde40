"""The application, and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Co-design of transformers and the accelerators that run them.",
    epilog="Start with: transcode demo. Every command has --help. Exit codes: 0 done, 1 a check "
    "failed, 2 bad input or a missing tool, 130 interrupted (the same command goes on).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Seed = Annotated[int, typer.Option(help="Seed of all randomness.", min=0)]
TaskName = Annotated[
    str,
    typer.Option(
        help="movie-sentences, imdb, trec, trec-fine, sms-spam, the folder of a data set, or one "
        "of the Hugging Face hub such as glue/sst2, with a network."
    ),
]
Technology = Annotated[
    str,
    typer.Option(
        help="Where area and energy come from: acceltran-14nm (published), nangate45 (the units as "
        "synthesised), nangate45-to-14nm or nangate45-to-7nm (projected from there)."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
