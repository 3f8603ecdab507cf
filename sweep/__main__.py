"""`python -m sweep VERB`: run, submit, logs, plan, status, failures, check, show, diff."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    from sweep.run import DESCRIPTION, add_budget_arguments, add_config_arguments, add_retry_argument, guarded

    parser = argparse.ArgumentParser(prog="python -m sweep", description="Sweeps of hot-swapped families.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    about = {
        "run": DESCRIPTION,
        "submit": "Hand a run to a cluster, where it goes on when this terminal closes.",
        "logs": "Show what the latest run said, from its results.",
        "plan": "Show what would run, what is done, what sharing saves, and the cost. Writes nothing.",
        "status": "Count the families by status.",
        "failures": "Show failed families grouped by cause, with the command that runs them again.",
        "check": "Read every file of the results to its end, and name those that are damaged.",
        "show": "Show one family: schedule, recipe, results, provenance.",
        "diff": "Show in what two families or two sweeps differ: configuration, provenance, results with intervals. Exit code 0 whatever "
        "they differ in, 2 where one of them is not there.",
    }
    for verb, text in about.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        add_config_arguments(sub)
        if verb in ("run", "plan"):
            add_budget_arguments(sub)
        if verb in ("run", "submit"):
            add_retry_argument(sub)
        if verb == "submit":
            sub.add_argument("--address", metavar="URL", help="the cluster's dashboard; default http://127.0.0.1:8265")
        if verb == "logs":
            sub.add_argument("--lines", metavar="N", type=int, default=40, help="how many lines, from the end; default 40")
        if verb == "check":
            sub.add_argument("--repair", action="store_true", help="have the families of damaged files run again: their rows are deleted")
        if verb == "show":
            sub.add_argument("trial", metavar="ID", help="a family's id: t and 12 hexadecimal digits, or the start of it")
        if verb == "diff":
            for name in ("a", "b"):
                sub.add_argument(name, metavar=name.upper(), help="a folder of results; or a family's id in the sweep chosen, or PATH/ID")
            sub.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object, unrounded")
    options = parser.parse_args(arguments)

    def call() -> int:
        if options.verb == "run":
            from sweep.run import run

            return run(options.config, options.overrides, options.budget_hours, options.trim, options.retry)
        from sweep import jobs, views

        if options.verb == "submit":
            return jobs.submit(options.config, options.overrides, options.address, options.retry)
        if options.verb == "logs":
            return jobs.logs(options.config, options.overrides, options.lines)
        if options.verb == "plan":
            return views.plan(options.config, options.overrides, options.budget_hours, options.trim)

        if options.verb == "check":
            return views.check(options.config, options.overrides, options.repair)
        if options.verb == "diff":
            from sweep.diff import diff

            return diff(options.config, options.overrides, options.a, options.b, options.as_json)
        identifiers = [options.trial] if options.verb == "show" else []
        view = getattr(views, options.verb)
        return int(view(options.config, options.overrides, *identifiers))

    return guarded(call)


if __name__ == "__main__":
    sys.exit(main())
