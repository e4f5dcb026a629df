"""The site's addresses."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.urls import path
from django.views.generic import RedirectView

from soc.board import views as board
from soc.core import views

_SIGN_IN = auth.LoginView.as_view(
    template_name="sign_in.html",
    # Django's view would put the host's name there.
    extra_context={"site_name": settings.SITE["SOC_SITE"]},
)
_TO_SIGN_IN = RedirectView.as_view(pattern_name="login", query_string=True)

urlpatterns = [
    path("", board.board, name="board"),
    path("board/live/", board.live, name="board-live"),
    path("sign-in/", _SIGN_IN, name="login"),
    path("sign-out/", auth.LogoutView.as_view(next_page="login"), name="logout"),
    # One way in and out, for the admin as well.
    path("admin/login/", login_not_required(_TO_SIGN_IN)),
    path("admin/logout/", auth.LogoutView.as_view(next_page="login")),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz, name="healthz"),
]
