"""`python -m sweep VERB`: run, submit, logs, plan, status, failures, check, show, diff, completion."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    from sweep.command_line import guarded, parsed, typed

    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = parsed(words)
    return guarded(lambda: _call(chosen), typed("sweep", words))


def _call(chosen: argparse.Namespace) -> int:
    """The verb, imported when it is known which: not all need what is slow to import."""
    if chosen.verb == "completion":
        from sweep.completion import completion

        return completion(chosen.shell)
    config, overrides = chosen.config, chosen.overrides
    if chosen.verb == "run":
        from sweep.run import run

        return run(config, overrides, chosen.budget_hours, chosen.trim, chosen.retry, chosen.quiet, chosen.verbose)
    from sweep import jobs, views

    if chosen.verb == "submit":
        return jobs.submit(config, overrides, chosen.address, chosen.retry)
    if chosen.verb == "logs":
        return jobs.logs(config, overrides, chosen.lines)
    if chosen.verb == "plan":
        return views.plan(config, overrides, chosen.budget_hours, chosen.trim, chosen.as_json)
    if chosen.verb == "check":
        return views.check(config, overrides, chosen.repair)
    if chosen.verb == "show":
        return views.show(config, overrides, chosen.trial)
    if chosen.verb == "diff":
        from sweep.diff import diff

        return diff(config, overrides, chosen.a, chosen.b, chosen.as_json)
    view = {"status": views.status, "failures": views.failures}[chosen.verb]
    return view(config, overrides, chosen.as_json)


if __name__ == "__main__":
    sys.exit(main())
