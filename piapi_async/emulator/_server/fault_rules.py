"""Which requests are hit by which faults: rules, their counting, and rules from a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from random import Random
from typing import Any

import attrs
from attrs import Factory, define, field

from .._api.routes import KNOWN_ROUTES, names_of
from .._service.tasks import Script
from ..faults import KINDS, Fault, Refuse, TaskFault, WireFault


@define
class Rule:
    """One fault and the requests that it hits.

    From the `nth` of the route on, `times` of them (None = all), each with a probability `rate`.
    """

    route: str
    fault: Fault
    nth: int = 1
    times: int | None = 1
    rate: float | None = None
    met: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if self.route not in KNOWN_ROUTES:
            raise ValueError(f"unknown route {self.route!r}; known: {', '.join(sorted(KNOWN_ROUTES))}")
        if self.nth < 1 or (self.times is not None and self.times < 1):
            raise ValueError(f"nth and times count from 1: nth={self.nth}, times={self.times}")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise ValueError(f"rate must lie in 0..1: {self.rate}")

    def matches(self, route: str) -> bool:
        """Return whether this rule is about that route."""
        return self.route in names_of(route)

    def fires(self, rng: Random, *, ahead: int = 0) -> bool:
        """Count one request and return whether it is hit.

        With `ahead=1` return whether the next one would be, without counting it.
        """
        self.met += 1 - ahead

        if self.met + ahead < self.nth:
            return False
        if self.times is not None and self.fired >= self.times:
            return False
        if self.rate is not None and rng.random() >= self.rate:
            return False

        self.fired += 1
        return True


@define
class FaultRules:
    """All rules, in order: a request that is hit by one rule is not counted by those after it."""

    rng: Random
    rules: list[Rule] = Factory(list)

    def wire_fault(self, route: str) -> WireFault | None:
        """Return the fault that hits the next request of a route."""
        found: WireFault | None = self._next(route, WireFault)
        return found

    def script(self, route: str) -> Script | None:
        """Return how the task of the next create is to go."""
        fault = self._next(route, TaskFault)
        return None if fault is None else fault.script

    def outage(self) -> Refuse | None:
        """Return the outage that is due: it takes effect before the next request."""
        for rule in self.rules:
            if isinstance(rule.fault, Refuse) and rule.fires(self.rng, ahead=1):
                return rule.fault
        return None

    def count_for_outages(self, route: str) -> None:
        """Count a request for the rules about outages."""
        for rule in self.rules:
            if isinstance(rule.fault, Refuse) and rule.matches(route):
                rule.met += 1

    def _next(self, route: str, kinds: Any) -> Any:  # noqa: ANN401 - a union of classes, and a member of it
        for rule in self.rules:
            if isinstance(rule.fault, kinds) and rule.matches(route) and rule.fires(self.rng):
                return rule.fault
        return None


def load_faults(path: str | Path) -> tuple[Rule, ...]:
    """Read rules from a TOML file of `[[fault]]` tables; raise `ValueError` naming file, table and field.

    Each has `route`, `kind` and the kind's own fields, besides `nth`, `times` (default 1, or all
    with a rate), `rate`:

        [[fault]]
        route = "reroll"
        kind = "drop"
        after_body = true
    """
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8")).get("fault", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error

    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path}: faults are written as [[fault]] tables")

    rules = []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(_rule(dict(table)))
        except (TypeError, ValueError) as error:
            reason = error.args[0] if error.args else error
            raise ValueError(f"{path}: fault {number}: {reason}") from error
    return tuple(rules)


def _rule(table: dict[str, Any]) -> Rule:
    route, kind = table.pop("route", "*"), table.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")

    when = {name: table.pop(name) for name in ("nth", "times", "rate") if name in table}
    names = {attribute.name for attribute in attrs.fields(KINDS[kind])}
    if unknown := sorted(table.keys() - names):
        raise ValueError(f"{kind} has no field {unknown[0]!r}; it has: {', '.join(sorted(names)) or 'none'}")

    if when.get("rate") is not None:
        when.setdefault("times", None)
    return Rule(route, KINDS[kind](**table), **when)
