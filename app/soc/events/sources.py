"""Sources that applications want events of, created by their data migrations."""

from dataclasses import dataclass

from django.apps.registry import Apps


@dataclass(frozen=True)
class Source:
    """Where the events of one kind come from: their provider and the log that holds them."""

    provider: str
    channel: str
    description: str


def allow(apps: Apps, *sources: Source) -> None:
    """Allow the sources that are not known yet; what an administrator has set stays.

    ``apps`` is the registry of a migration.
    """
    model = apps.get_model("events", "EventSource")
    for source in sources:
        model.objects.get_or_create(
            provider=source.provider,
            channel=source.channel,
            defaults={"allowed": True, "description": source.description},
        )
