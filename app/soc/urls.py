"""The site's addresses."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from django.views.generic import RedirectView

from soc.alerts import views as alerts
from soc.api import routes as api
from soc.board import views as board
from soc.core import readiness, views
from soc.metrics import metrics

_SIGN_IN = auth.LoginView.as_view(
    template_name="sign_in.html",
    # Django's view would put the host's name there.
    extra_context={"site_name": settings.SITE["SOC_SITE"]},
)
_TO_SIGN_IN = RedirectView.as_view(pattern_name="login", query_string=True)

urlpatterns = [
    path("", board.board, name="board"),
    path("board/live/", board.live, name="board-live"),
    path("alerts/", alerts.alerts, name="alerts"),
    path("alerts/live/", alerts.alerts_live, name="alerts-live"),
    path("alerts/operate/", alerts.operate, name="alerts-operate"),
    path("alerts/<int:key>/", alerts.alert, name="alert"),
    path("alerts/<int:key>/live/", alerts.alert_live, name="alert-live"),
    path("sign-in/", _SIGN_IN, name="login"),
    path("sign-out/", auth.LogoutView.as_view(next_page="login"), name="logout"),
    # One way in and out, for the admin as well.
    path("admin/login/", login_not_required(_TO_SIGN_IN)),
    path("admin/logout/", auth.LogoutView.as_view(next_page="login")),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", readiness.readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("api/", include((api.urlpatterns, "api"))),
]
