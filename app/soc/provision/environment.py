"""The variables of a site's env file: one catalogue, one check, one message.

``env/example.env`` documents each variable once; a contract test keeps the two equal. The same
check runs in ``make up`` on the whole file and at the start of every process on its environment.
"""

import difflib
import ipaddress
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import available_timezones

ROLES = ("Viewers", "Operators", "Reporters", "Administrators")
_OR_ROLES = f"{', '.join(ROLES[:-1])} or {ROLES[-1]}"

Check = Callable[[str], str]
"""Takes a value and returns what is wrong with it, or an empty string."""


class EnvironmentProblem(Exception):
    """The site's variables or secrets are not usable; the message lists everything wrong."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(
            f"{where} cannot be used:\n{lines}\n"
            "env/example.env says what each variable is for; correct these and start again."
        )


def _matches(pattern: str, expectation: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: "" if compiled.fullmatch(value) else f"is not {expectation}"


def _one_of(*choices: str) -> Check:
    return lambda value: "" if value in choices else f"is not one of {', '.join(choices)}"


def _all(check: Check) -> Check:
    """Apply ``check`` to each part of a comma-separated list and name the parts that fail."""

    def check_parts(value: str) -> str:
        if not split(value):
            return "has no part"
        wrong = [part for part in split(value) if check(part)]
        return f"has a part that {check(wrong[0])}: {', '.join(wrong)}" if wrong else ""

    return check_parts


def _scopes(value: str) -> str:
    # RFC 6749, 3.3, without the comma that separates them here.
    scope = _matches(r"[!#-+\--\[\]-~]+", "a scope without blanks: separate scopes by commas")
    return _all(scope)(value) or ("" if "openid" in split(value) else "lacks the scope openid")


def _roles(value: str) -> str:
    try:
        return "" if roles_by_group(value) else "has no part"
    except ValueError as error:
        return str(error)


def _port(value: str) -> str:
    return "" if value.isdecimal() and 0 < int(value) < 65536 else "is not a port (1 to 65535)"


def _time_zone(value: str) -> str:
    return "" if value in available_timezones() else "is not a time zone such as Europe/Berlin"


def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return "is not an IP address"
    return ""


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return "is not a network such as 192.0.2.0/24"
    return ""


name = _matches(
    r"(?!example$)[a-z][a-z0-9-]{0,23}", "a name of up to 24 lower-case letters, digits and hyphens"
)
project = _matches(r"[a-z0-9][a-z0-9_-]{0,60}", "a name that Compose takes for a project")
host = _matches(r"[A-Za-z0-9_]([A-Za-z0-9._:-]*[A-Za-z0-9])?", "a host name or address")
helo = _matches(
    r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f.:]+\]", "a host name or an [address]"
)
webhook_host = _matches(
    r"\.?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9]\d{0,4})?",
    "a host such as hooks.example.com, .example.com or host:8443",
)
mail_address = _matches(r"[^@\s<>,]+@[^@\s<>,]+", "a mail address")
image = _matches(r".+:(?!latest$)[\w][\w.-]*", "an image with an exact tag (not latest)")
cpus = _matches(r"(?=.*[1-9])\d{1,3}(\.\d{1,2})?", "a number of CPUs such as 0.20")
memory = _matches(r"[1-9]\d*[MG]", "an amount of memory such as 256M")
https_url = _matches(r"https://[A-Za-z0-9.\[\]:_-]+(/[!-~]*)?", "an https address without blanks")
count = _matches(r"[1-9]\d{0,6}", "a whole number above 0")


@dataclass(frozen=True)
class Variable:
    """One variable of the env file; ``optional`` ones may be left empty."""

    name: str
    check: Check
    optional: bool = False


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
LIMITED = ("MARIADB", "RABBITMQ", "WEB", "WORKER", "BEAT", "FLOWER")

VARIABLES: tuple[Variable, ...] = (
    Variable("SOC_SITE", name),
    Variable("SOC_STACK", _one_of("containers", "embedded")),
    Variable("COMPOSE_PROJECT_NAME", project),
    Variable("COMPOSE_PROFILES", _one_of("catcher"), optional=True),
    Variable("APP_IMAGE", image),
    Variable("PYTHON_IMAGE", image),
    Variable("MARIADB_IMAGE", image),
    Variable("RABBITMQ_IMAGE", image),
    Variable("SOC_HOSTNAMES", _all(host)),
    Variable("SOC_BIND", _address),
    Variable("SOC_WEB_PORT", _port),
    Variable("SOC_FLOWER_PORT", _port),
    Variable("SOC_TIME_ZONE", _time_zone),
    Variable("SOC_LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR")),
    Variable("SOC_SMTP_HOST", host),
    Variable("SOC_SMTP_PORT", _port),
    Variable("SOC_SMTP_SECURITY", _one_of("starttls", "tls", "none")),
    Variable("SOC_SMTP_USER", _matches(r"\S+", "a user name"), optional=True),
    Variable("SOC_SMTP_OAUTH_URL", https_url, optional=True),
    Variable("SOC_SMTP_OAUTH_CLIENT_ID", _matches(r"\S+", "a client's name"), optional=True),
    Variable("SOC_SMTP_OAUTH_SCOPE", _matches(r"[\x21-\x7e ]+", "a scope"), optional=True),
    Variable("SOC_SMTP_HELO", helo, optional=True),
    Variable("SOC_MAIL_FROM", mail_address),
    Variable("SOC_MAIL_FROM_NAME", _matches(r"[^<>@\x00-\x1f]{1,64}", "a name"), optional=True),
    Variable("SOC_MAIL_TO", _all(mail_address)),
    Variable("SOC_MAIL_PER_MINUTE", count, optional=True),
    Variable("SOC_BOUNCE_IMAP_HOST", host, optional=True),
    Variable("SOC_BOUNCE_IMAP_PORT", _port, optional=True),
    Variable("SOC_BOUNCE_IMAP_USER", _matches(r"\S+", "a user name"), optional=True),
    Variable("SOC_WEBHOOK_HOSTS", _all(webhook_host), optional=True),
    Variable("SOC_WEBHOOK_NETWORKS", _all(_network), optional=True),
    Variable("SOC_SESSION_HOURS", count, optional=True),
    Variable("SOC_SESSION_IDLE_MINUTES", count, optional=True),
    Variable("SOC_HSTS_SECONDS", _matches(r"\d{1,9}", "a number of seconds"), optional=True),
    Variable("SOC_AUDIT_DAYS", count, optional=True),
    Variable("SOC_FLOWER_CONTROL", _one_of("off", "on"), optional=True),
    Variable("SOC_PING_URL", https_url, optional=True),
    Variable("SOC_OIDC_ISSUER", https_url, optional=True),
    Variable("SOC_OIDC_CLIENT_ID", _matches(r"\S+", "a client's name"), optional=True),
    Variable("SOC_OIDC_SCOPES", _scopes, optional=True),
    Variable("SOC_OIDC_GROUPS_CLAIM", _matches(r"\S+", "a claim's name"), optional=True),
    Variable("SOC_OIDC_ROLES", _roles, optional=True),
    *(Variable(f"SOC_{service}_CPUS", cpus) for service in LIMITED),
    *(Variable(f"SOC_{service}_MEMORY", memory) for service in LIMITED),
    Variable("SOC_PIDS", count),
)
BY_NAME = {variable.name: variable for variable in VARIABLES}
TOGETHER = (
    ("SOC_OIDC_ISSUER", "SOC_OIDC_CLIENT_ID", "SOC_OIDC_ROLES"),
    ("SOC_SMTP_OAUTH_URL", "SOC_SMTP_OAUTH_CLIENT_ID"),
    ("SOC_BOUNCE_IMAP_HOST", "SOC_BOUNCE_IMAP_USER"),
)
"""Optional variables of which a site sets all or none."""

SET_BY_THE_STACK = ("SOC_SERVICE", "SOC_IDENTITY", "SOC_STATE")
"""Variables that compose.yaml and supervisord.conf set; a site does not."""

_EXAMPLE_ADDRESS = re.compile(r"(^|[@.])example\.(org|com|net)\b")
_COMMON = ("change", "password", "secret", "admin", "guest", "default", "example", "12345")
_LINE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)")


def is_weak(value: str) -> bool:
    """Return whether a password or key is so short, so plain or so common that it is guessed."""
    common = any(word in value.lower() for word in _COMMON)
    return len(value) < 20 or len(set(value)) < 8 or common


def split(value: str) -> list[str]:
    """Return the parts of a comma-separated value without blanks."""
    return [part.strip() for part in value.split(",") if part.strip()]


def roles_by_group(value: str) -> dict[str, str]:
    """Return the role of each group in ``group=Role,…``.

    A group may be a distinguished name, whose commas separate nothing: it goes on until a role.

    Raises:
        ValueError: a part gives no role to a group.
    """
    found: dict[str, str] = {}
    parts: list[str] = []
    for part in split(value):
        parts.append(part)
        group, equals, role = ",".join(parts).rpartition("=")
        if equals and role in ROLES:
            if not group or ("," in group and not all("=" in part for part in group.split(","))):
                break
            found[group] = role
            parts = []
    if parts:
        raise ValueError(f"has a part that is not group={_OR_ROLES}: {','.join(parts)}")
    return found


def public_hostnames(values: Mapping[str, str]) -> list[str]:
    """Return the names by which other machines know the site."""
    return [name for name in split(values["SOC_HOSTNAMES"]) if name not in _LOOPBACK]


def parse(text: str) -> tuple[dict[str, str], list[str]]:
    """Parse an env file as Docker Compose does and return its values and what is wrong.

    Compose's own syntax is wider (quotes, ``$`` expansion, continuation); what it would read in
    another way than a person does is reported instead of guessed.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            problems.append(f"line {number} is not NAME=value: {line.strip()[:40]!r}")
            continue
        variable, value = match["name"], match["value"].strip()
        if variable in values:
            problems.append(f"{variable} is set twice (again in line {number})")
        if re.search(r"[$'\"\\]| #", value):
            problems.append(f"{variable} holds a quote, $, backslash or comment (line {number})")
        values[variable] = value
    return values, problems


def problems_of(values: Mapping[str, str]) -> list[str]:
    """Return everything that is wrong with a site's values: unknown, missing, bad or unchanged."""
    problems = []
    for unknown in sorted(set(values) - set(BY_NAME)):
        near = difflib.get_close_matches(unknown, BY_NAME, n=1)
        problems.append(f"{unknown} is unknown" + (f"; is {near[0]} meant?" if near else ""))
    for variable in VARIABLES:
        value = values.get(variable.name, "")
        if not value:
            if not variable.optional:
                problems.append(f"{variable.name} is missing")
        elif wrong := variable.check(value):
            problems.append(f"{variable.name} {wrong}: {value!r}")
        elif _EXAMPLE_ADDRESS.search(value):
            problems.append(f"{variable.name} still has the example's address: {value!r}")
    for group in TOGETHER:
        unset = [name for name in group if not values.get(name)]
        if 0 < len(unset) < len(group):
            names = ", ".join(group)
            problems.append(f"{' and '.join(unset)} must be set too, or none of {names}")
    if values.get("SOC_SMTP_OAUTH_URL") and not values.get("SOC_SMTP_USER"):
        problems.append("SOC_SMTP_USER must be set too: the mailbox that a token is for")
    return problems


def problems_of_file(path: Path) -> list[str]:
    """Return everything that is wrong with an env file, its permissions included."""
    if not path.is_file():
        return [f"{path} does not exist; `make site SITE={path.stem}` creates it"]
    problems = []
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        problems.append(f"{path} can be read by others; `chmod 600 {path}` closes it")
    values, malformed = parse(path.read_text(encoding="utf-8"))
    problems += malformed + problems_of(values)
    if values.get("SOC_SITE", path.stem) != path.stem:
        problems.append(f"SOC_SITE is {values['SOC_SITE']!r} but the file is {path.name}")
    return problems


def secret_of_site(path: Path, why: str) -> str:
    """Return a secret that a site has to write itself.

    Raises:
        EnvironmentProblem: the file is missing, unreadable or empty.
    """
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise EnvironmentProblem(str(path), [f"{error.strerror}, but {why}"]) from None
    if not value:
        raise EnvironmentProblem(str(path), [f"is empty, but {why}"])
    return value


def of_process(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the site's values from a process's environment.

    Raises:
        EnvironmentProblem: a ``SOC_`` variable is unknown, or one of the site's is missing or bad.
    """
    ours = {
        key: value
        for key, value in environ.items()
        if key in BY_NAME or (key.startswith("SOC_") and key not in SET_BY_THE_STACK)
    }
    if problems := problems_of(ours):
        raise EnvironmentProblem("The environment of this process", problems)
    return ours
