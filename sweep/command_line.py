"""The words of the command line: what each verb takes, how it ends, and what to type to have it once more. Imports no torch."""

from __future__ import annotations

import argparse
import shlex
import signal
import threading
from collections.abc import Callable, Sequence

from rich.console import Console

from analysis.options import number
from sweep.config import ConfigError, recipe_names
from sweep.log import printable
from sweep.mistakes import near

RUN = "Train the families of a sweep that are not in its tables yet, analyse all, and print the verdict."
VERBS = {
    "run": RUN,
    "submit": "Hand a run to a cluster, where it goes on when this terminal closes.",
    "logs": "Show what the latest run said, from its results.",
    "plan": "Show what would run, what is done, what sharing saves, and the cost. Writes nothing.",
    "status": "Count the families by status.",
    "failures": "Show failed families grouped by cause, with the command that runs them again.",
    "check": "Read every file of the results to its end, and name those that are damaged.",
    "show": "Show one family: schedule, recipe, results, provenance.",
    "diff": "Show in what two families or two sweeps differ: configuration, provenance, results with intervals. Exit code 0 whatever "
    "they differ in, 2 where one of them is not there.",
    "completion": "Print the completion of `sweep` for a shell, to be loaded by it.",
}
# How a command ends. Documented in docs/command_line.md.
DONE, INCOMPLETE, REFUSED, INTERRUPTED = 0, 1, 2, 130


def parser_of_all(prog: str = "python -m sweep") -> argparse.ArgumentParser:
    """The command line with all verbs."""
    parser = argparse.ArgumentParser(prog=prog, description="Sweeps of hot-swapped families.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        if verb == "completion":
            sub.add_argument("shell", choices=["bash", "zsh"], help="the shell to complete in")
            continue
        _add_config(sub)
        if verb in ("run", "plan"):
            _add_budget(sub)
        if verb in ("run", "submit"):
            _add_retry(sub)
        if verb == "run":
            _add_loudness(sub)
        if verb == "submit":
            sub.add_argument("--address", metavar="URL", help="the cluster's dashboard; default http://127.0.0.1:8265")
        if verb == "logs":
            sub.add_argument("--lines", metavar="N", type=number(int, 1, 10**9), default=40, help="how many lines, from the end (40)")
        if verb == "check":
            sub.add_argument("--repair", action="store_true", help="have the families of damaged files run again: their rows are deleted")
        if verb == "show":
            sub.add_argument("trial", metavar="ID", help="a family's id: t and 12 hexadecimal digits, or the start of it")
        if verb == "diff":
            for name in ("a", "b"):
                sub.add_argument(name, metavar=name.upper(), help="a folder of results; or a family's id in the sweep chosen, or PATH/ID")
        if verb in ("plan", "status", "failures", "diff"):
            sub.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object, unrounded")
    return parser


def parser_of_run() -> argparse.ArgumentParser:
    """The command line of `python -m sweep.run`: the verb `run` alone."""
    parser = argparse.ArgumentParser(prog="python -m sweep.run", description=RUN)
    for add in (_add_config, _add_budget, _add_retry, _add_loudness):
        add(parser)
    return parser


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The words of `python -m sweep`. Exits with REFUSED and a message where they are wrong."""
    parser = parser_of_all()
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        parser.error(f"{words[0]!r} is no verb; {near(words[0], [*VERBS])}allowed: {', '.join(VERBS)}")
    return parser.parse_args(words)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="NAME|FILE",
        help=f"a shipped recipe ({', '.join(recipe_names())}) or a .yaml file; default cells",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a key, e.g. training.replicas=4",
    )


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget-hours", metavar="H", type=_hours, help="refuse a plan that costs more device-hours")
    parser.add_argument("--trim", action="store_true", help="with --budget-hours: run the first families that fit instead")


def _add_retry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry",
        metavar="failed|all|IDS",
        default="all",
        help="which families run: all that are not in the tables, those that failed among them (the default); only those that failed or "
        "were skipped; or some by their ids, separated by commas",
    )


def _add_loudness(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--quiet", action="store_true", help="say nothing but what went wrong; the log beside the results has the rest")
    either.add_argument("--verbose", action="store_true", help="also say when a family starts, from what, and when it saves a state")


def _hours(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of device-hours above 0, e.g. 0.5")
    return value


def guarded(verb: Callable[[], int], again: str) -> int:
    """Run a verb. A user's mistake becomes its message and exit code 2; Ctrl-C and SIGTERM a line with `again`, what to type to go on, and
    130."""
    in_main = threading.current_thread() is threading.main_thread()  # no other may say what a signal does
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        return verb()
    except Exception as error:
        if not isinstance(error, (ConfigError, MemoryError)) and not isinstance(error, _further_mistakes()):
            raise
        said = f"not enough memory: {error}" if isinstance(error, MemoryError) else str(error)
        Console(stderr=True, soft_wrap=True).print(printable(said), highlight=False, markup=False, style="red")
        return REFUSED
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(f"stopped. To go on: {again}", highlight=False, markup=False)
        return INTERRUPTED
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _further_mistakes() -> tuple[type[Exception], ...]:
    """What else is the user's to mend. Imported when something went wrong: it is slow."""
    from analysis.reading import Unreadable
    from analysis.storage import Unreachable
    from trainables.schedule import NameMismatch

    return NameMismatch, Unreachable, Unreadable


def typed(module: str, words: Sequence[str]) -> str:
    """The command that has these words."""
    return shlex.join(["python", "-m", module, *words])


def command(config_name: str | None, overrides: list[str], retry: str = "all") -> str:
    """What to type to run a sweep again."""
    chosen = ["--config", config_name] if config_name else []
    retried = [] if retry == "all" else ["--retry", retry]
    return typed("sweep.run", [*chosen, *(word for override in overrides for word in ("--set", override)), *retried])
