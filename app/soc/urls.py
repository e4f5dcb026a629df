"""The site's addresses."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from django.views.generic import RedirectView

from soc.access import oidc
from soc.access.views import SignIn, SignOut
from soc.alerts import views as alerts
from soc.api import routes as api
from soc.board import views as board
from soc.core import readiness, views
from soc.events import views as events
from soc.ldap_probe import views as directories
from soc.mail_collector import views as mail
from soc.metrics import metrics
from soc.robots import views as robots
from soc.ssl_certs import views as ssl_certs

_TO_SIGN_IN = RedirectView.as_view(pattern_name="login", query_string=True)

urlpatterns = [
    path("", board.board, name="board"),
    path("board/live/", board.live, name="board-live"),
    path("queues/", events.queues, name="queues"),
    path("certificates/", ssl_certs.certificates, name="certificates"),
    path("certificates/live/", ssl_certs.certificates_live, name="certificates-live"),
    path("certificates/import/", ssl_certs.import_endpoints, name="certificates-import"),
    path("certificates/calendar.ics", ssl_certs.calendar, name="certificates-calendar"),
    path("certificates/<int:key>/", ssl_certs.endpoint, name="endpoint"),
    path("certificates/<int:key>/live/", ssl_certs.endpoint_live, name="endpoint-live"),
    path("certificates/<int:key>/verify/", ssl_certs.verify, name="endpoint-verify"),
    path("alerts/", alerts.alerts, name="alerts"),
    path("alerts/live/", alerts.alerts_live, name="alerts-live"),
    path("alerts/operate/", alerts.operate, name="alerts-operate"),
    path("alerts/<int:key>/", alerts.alert, name="alert"),
    path("alerts/<int:key>/live/", alerts.alert_live, name="alert-live"),
    path("robots/", robots.robots, name="robots"),
    path("robots/live/", robots.robots_live, name="robots-live"),
    path("robots/site/<int:key>/", robots.site, name="robots-site"),
    path("robots/site/<int:key>/live/", robots.site_live, name="robots-site-live"),
    path("mail/", mail.mail, name="mail-matrix"),
    path("mail/live/", mail.mail_live, name="mail-matrix-live"),
    path("directories/", directories.directories, name="directories"),
    path("directories/live/", directories.directories_live, name="directories-live"),
    path("directories/compare/", directories.directories_compared, name="directories-compared"),
    path("directories/import/", directories.import_directories, name="directories-import"),
    path("directories/<int:key>/", directories.directory, name="directory"),
    path("directories/<int:key>/live/", directories.directory_live, name="directory-live"),
    path("directories/<int:key>/probe/", directories.probe_directory, name="directory-probe"),
    path(
        "directories/credentials/<int:key>/try/",
        directories.try_credential,
        name="directory-credential-try",
    ),
    path("sign-in/", SignIn.as_view(), name="login"),
    path("sign-in/provider/", oidc.start, name="oidc-start"),
    path("sign-in/provider/back/", oidc.callback, name="oidc-callback"),
    path("sign-out/", SignOut.as_view(), name="logout"),
    # One way in and out, for the admin as well.
    path("admin/login/", login_not_required(_TO_SIGN_IN)),
    path("admin/logout/", SignOut.as_view()),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", readiness.readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("api/", include((api.urlpatterns, "api"))),
]
