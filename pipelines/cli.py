"""The `ctr` command: parses arguments, runs one job, turns errors into messages and exit codes.

Exit codes: 0 ok, 1 a fault of this program, 2 usage or configuration, 3 data, 4 non-finite training, 5
checkpoint unusable, 6 run directory locked, 75 try again (I/O, memory, preemption), 130 / 143 ended by a
signal.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from features.durable import WRONG_PLACE
from features.errors import ConfigError, CtrError
from features.memory.shortage import is_shortage, told_by
from features.remote.shown_places import as_named
from features.remote.url import remote
from pipelines.supervise import is_child, needs_supervision, supervise
from pipelines.terminal import Parser, echo, keep_traceback, log_to_stderr

# name → (module with add_arguments and run, one-line help); modules load only when their command is called
COMMANDS = {
    "demo": ("pipelines.demo", "simulate, prepare, train, evaluate: everything once, in a few minutes"),
    "simulate": ("pipelines.simulate", "write a raw click log with a known click probability"),
    "download": ("pipelines.download", "fetch a public data set from its owner, with checksum"),
    "prepare": ("pipelines.prepare", "raw logs → dataset directory"),
    "doctor": ("pipelines.doctor", "prove that a dataset does not leak, and describe it"),
    "models": ("pipelines.models", "list the models and what they are made of"),
    "train": ("pipelines.train", "train a model, or resume its run"),
    "evaluate": ("pipelines.evaluate", "score a split, compute metrics with intervals, write a report"),
    "predict": ("pipelines.predict", "score a split into a predictions table"),
    "ensemble": ("pipelines.ensemble", "several runs as one model: the mean of their logits, evaluated"),
    "score": ("pipelines.score", "score many candidates per request with cached states; serve over HTTP"),
    "export": ("pipelines.export", "the trained model as programs that run without this package"),
    "counters": ("pipelines.counters", "export what counters held at a moment, for a service that scores"),
    "baseline": ("pipelines.baseline", "logistic regression or LightGBM on the dense features"),
    "generate": ("pipelines.generate", "next-behaviour generation: train, decode, compare strategies"),
    "ablate": ("pipelines.ablate", "compare variants of a run: what pays, at what cost, how sure"),
    "tune": ("pipelines.tune", "search options on validation, show the winners on later days, once"),
    "scaling": ("pipelines.scaling", "how quality grows with size: fit, predict the next size, score it"),
    "roll": ("pipelines.roll", "day after day: prepare, test, train on, compare, promote"),
    "bench": ("pipelines.bench", "measure speed, memory and what each optimisation contributes"),
    "sync": ("pipelines.sync", "replay a run's journal to MLflow"),
}


# Which of a command's paths may be in an object store (docs/remote.md); all others are of this machine.
REMOTE = {
    "prepare": {"out", "after"},
    "doctor": {"dataset"},
    "baseline": {"dataset"},
    "evaluate": {"run_dir", "dataset"},
    "predict": {"run_dir", "dataset"},
    "ensemble": {"runs", "dataset"},
    "score": {"run_dir", "dataset"},
    "counters": {"run_dir", "dataset"},
}

_VERIFY = "features.store.verify"  # imported when it is needed: what supervises a command stays small

# These read a data set, and compare it with its hashes first.
READING = (
    "train",
    "evaluate",
    "predict",
    "ensemble",
    "score",
    "export",
    "counters",
    "baseline",
    "generate",
    "ablate",
    "scaling",
    "tune",
    "roll",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, that of the command line where none is given; returns its exit code."""
    if argv is None and not is_child() and needs_supervision():
        return supervise()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments))


def guarded(job: Callable[[], int]) -> int:
    """Run a job; errors a user can cause become one message and their exit code."""
    log_to_stderr()
    logging.getLogger(_VERIFY).setLevel(logging.INFO)  # its progress
    try:
        return job()
    except CtrError as error:
        if is_shortage(error):
            return _tell_of_memory(error)
        echo(as_named(_with_notes(f"error: {error}", error)), err=True)
        return error.exit_code
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        echo("interrupted", err=True)
        return 130
    except OSError as error:
        usage = error.errno in WRONG_PLACE
        remedy = "name another place" if usage else "mend it and run the command again"
        echo(_with_notes(f"error: {error}; {remedy}", error), err=True)
        return ConfigError.exit_code if usage else 75
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # such as SystemExit; a panic of Polars is no Exception either
        if is_shortage(error):
            return _tell_of_memory(error)
        kept = keep_traceback(error)
        echo(
            f"error: ctr did not expect this: {type(error).__name__}: {told_by(error)}; it is a fault of "
            f"ctr, please report it with its traceback, {kept or 'which could not be written'}",
            err=True,
        )
        return 1


def _with_notes(text: str, error: Exception) -> str:
    return "\n".join([text, *getattr(error, "__notes__", [])])


def _tell_of_memory(error: BaseException) -> int:
    echo(
        f"error: the memory must hold what the command needs, but does not ({told_by(error)}); "
        "free memory or raise the limit, or make batches, histories, the model or the data smaller",
        err=True,
    )
    return 75


def _dispatch(arguments: list[str]) -> int:
    parser = Parser(prog="ctr", description="Train click-through-rate models on logs.")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    name = next((a for a in arguments if not a.startswith("-")), None)
    for command, (module, text) in COMMANDS.items():
        sub = parsers.add_parser(command, help=text, description=text[0].upper() + text[1:] + ".")
        if command == name:
            importlib.import_module(module).add_arguments(sub)
            if command in READING:
                text = "do not compare the data set with its hashes: a damaged file then gives wrong figures"
                sub.add_argument("--no-verify", action="store_true", help=text)
    parsed = parser.parse_args(arguments)
    if getattr(parsed, "no_verify", False):
        from features.store import verify

        verify.enabled = False
        logging.getLogger(__name__).warning("the data set is not compared with its hashes (--no-verify)")
    _check_paths(parsed)
    run = importlib.import_module(COMMANDS[parsed.command][0]).run
    return int(run(parsed) or 0)


def _check_paths(parsed: argparse.Namespace) -> None:
    """Refuse a remote path where nothing carries it: it would become a folder of this machine."""
    for name, value in vars(parsed).items():
        for path in value if isinstance(value, list) else [value]:
            far = isinstance(path, Path) and name not in REMOTE.get(parsed.command, ()) and remote(path)
            if far:
                raise ConfigError(
                    f"{name.replace('_', '-')} of ctr {parsed.command} must be on this machine, got {far}; "
                    "copy it (docs/remote.md says what may be in an object store)"
                )


if __name__ == "__main__":
    sys.exit(main())
