"""What an application adds to the navigation: pages at the top, and a part of the admin's menu.

Its module ``nav`` may have ``PAGES``, a sequence of `Page`, and ``MENU``, one `Menu`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """A page named at the top of every page; `url` is the name of its address."""

    title: str
    url: str
    permission: str = ""
    """Who has it sees the page; everybody who is signed in, if it is empty."""


@dataclass(frozen=True)
class AdminPage:
    """The list of a model in the admin; `model` is its label, such as ``core.heartbeat``."""

    title: str
    icon: str
    """A name of Material Symbols."""
    model: str

    @property
    def permission(self) -> str:
        """Who has it sees the list."""
        application, name = self.model.split(".")
        return f"{application}.view_{name}"


class Menu:
    """Lists under a title; menus of one title are one."""

    def __init__(self, title: str, *pages: tuple[str, str, str]) -> None:
        """Take the lists as (title, icon, model)."""
        self.title = title
        self.pages = tuple(AdminPage(*page) for page in pages)
