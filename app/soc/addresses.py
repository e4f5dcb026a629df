"""The pages that mails link to, for services that serve none: names and paths without views.

Each application's ``linked`` declares its own, and its ``urls`` reads them there.
"""

from typing import NoReturn

from django.http import Http404
from django.urls import path

from soc.common import plugins


def _not_here(*_: object, **__: object) -> NoReturn:
    raise Http404("only the service web serves pages")


urlpatterns = [
    path(route, _not_here, name=name)
    for module in plugins.modules("linked")
    for name, route in module.LINKED.items()
]
