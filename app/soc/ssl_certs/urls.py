"""The certificate tracker's addresses."""

from django.urls import path

from soc.ssl_certs import views
from soc.ssl_certs.linked import LINKED

urlpatterns = [
    path(LINKED["certificates"], views.certificates, name="certificates"),
    path("certificates/live/", views.certificates_live, name="certificates-live"),
    path("certificates/import/", views.import_endpoints, name="certificates-import"),
    path("certificates/calendar.ics", views.calendar, name="certificates-calendar"),
    path(LINKED["endpoint"], views.endpoint, name="endpoint"),
    path("certificates/<int:key>/live/", views.endpoint_live, name="endpoint-live"),
    path("certificates/<int:key>/verify/", views.verify, name="endpoint-verify"),
]
