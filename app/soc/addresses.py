"""The pages that mails link to, for services that serve none: names and paths without views."""

from typing import NoReturn

from django.http import Http404
from django.urls import path


def _not_here(*_: object, **__: object) -> NoReturn:
    raise Http404("only the service web serves pages")


urlpatterns = [
    path("alerts/", _not_here, name="alerts"),
    path("alerts/<int:key>/", _not_here, name="alert"),
    path("certificates/", _not_here, name="certificates"),
    path("certificates/<int:key>/", _not_here, name="endpoint"),
    path("directories/", _not_here, name="directories"),
    path("directories/<int:key>/", _not_here, name="directory"),
    path("mail/", _not_here, name="mail-matrix"),
    path("robots/", _not_here, name="robots"),
    path("robots/site/<int:key>/", _not_here, name="robots-site"),
]
