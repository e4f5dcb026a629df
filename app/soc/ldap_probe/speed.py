"""What is slow: the phases of a probe measured by a profile's limits."""

from collections.abc import Iterable, Mapping

from soc.core.severity import Severity
from soc.ldap_probe.diagnostics import Phase
from soc.ldap_probe.models import TOTAL, Limit, Profile

STEPS = (
    ("alert", Severity.CRITICAL),
    ("error", Severity.WARNING),
    ("warning", Severity.INFO),
)
"""The steps of a profile, the worst first, as the severities that they raise."""


def judge(limits: Iterable[Limit], milliseconds: Mapping[Phase, float]) -> tuple[Severity, str]:
    """Return how slow a probe was, and a sentence about the slowest phases by their limits."""
    spent = {str(phase): took for phase, took in milliseconds.items()}
    spent[TOTAL] = sum(milliseconds.values())
    worst = Severity.OK
    said: list[str] = []
    for limit in limits:
        if (measured := spent.get(limit.phase)) is None:
            continue
        severity, step = _step(limit, "", measured / 1000)
        if severity == Severity.OK or severity < worst:
            continue
        if severity > worst:
            worst, said = severity, []
        bound = getattr(limit, step)
        said.append(
            f"{limit.get_phase_display()} took {measured / 1000:.2f} s ({step} from {bound:g} s)"
        )
    return worst, f"{'; '.join(said)}." if said else ""


def judge_lag(profile: Profile | None, seconds: int) -> Severity:
    """Return how bad it is that a copy is this many seconds behind."""
    return _step(profile, "lag_", seconds)[0] if profile else Severity.OK


def _step(limits: Limit | Profile, prefix: str, measured: float) -> tuple[Severity, str]:
    for step, severity in STEPS:
        bound = getattr(limits, prefix + step)
        if bound is not None and measured >= bound:
            return severity, step
    return Severity.OK, ""
