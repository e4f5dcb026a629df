"""The addresses of the directory servers."""

from django.urls import path

from soc.ldap_probe import views
from soc.ldap_probe.linked import LINKED

urlpatterns = [
    path(LINKED["directories"], views.directories, name="directories"),
    path("directories/live/", views.directories_live, name="directories-live"),
    path("directories/compare/", views.directories_compared, name="directories-compared"),
    path("directories/import/", views.import_directories, name="directories-import"),
    path(LINKED["directory"], views.directory, name="directory"),
    path("directories/<int:key>/live/", views.directory_live, name="directory-live"),
    path("directories/<int:key>/probe/", views.probe_directory, name="directory-probe"),
    path(
        "directories/credentials/<int:key>/try/",
        views.try_credential,
        name="directory-credential-try",
    ),
]
